"""Optimizer steps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .config import OptimizerConfig


def build_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with the configured rate, betas and decay."""
    return torch.optim.AdamW(parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay)


def learning_rate(config: OptimizerConfig, step: int) -> float:
    """The rate at `step`, counted from 0: a pure function, so that a resumed run needs no scheduler state."""
    return config.learning_rate * config.decay_per_step**step


def step_optimizer(optimizer: torch.optim.Optimizer, loss: Tensor, config: OptimizerConfig, step: int) -> None:
    """Backward pass, optional clipping of the gradient's norm, and one step at the rate of `step`."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if config.max_gradient_norm is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, config.max_gradient_norm)
    optimizer.step()
