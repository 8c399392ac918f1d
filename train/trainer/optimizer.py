"""AdamW and its learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from codectok.train.recipe import OptimizerConfig


def build_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """Fused AdamW with the configured learning rate, betas and weight decay."""
    return torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )


def learning_rate(config: OptimizerConfig, step: int) -> float:
    """Learning rate at `step`, counted from 0; a pure function, so that no scheduler state has to be saved."""
    rate = config.learning_rate
    if step < config.warmup_steps:
        return rate * (step + 1) / config.warmup_steps
    step -= config.warmup_steps
    if config.cosine_steps is None:
        return rate * config.decay_per_step**step
    progress = min(1.0, step / config.cosine_steps)
    height = (1 + math.cos(math.pi * progress)) / 2
    return rate * (config.final_share + (1 - config.final_share) * height)


def step_optimizer(optimizer: torch.optim.Optimizer, config: OptimizerConfig, step: int) -> None:
    """Clip the gradients if configured, take one step at the learning rate of `step`, and clear the gradients."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step)
    if config.max_gradient_norm is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, config.max_gradient_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
