"""AdamW and its learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from codectok.train.recipe import OptimizerConfig


def build_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """Fused AdamW with the configured learning rate, betas and weight decay."""
    return torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Restore the state of an optimizer.

    Raises:
        ValueError: the state is not one of this optimizer; torch itself would fail at the next step.
    """
    own = optimizer.state_dict()
    if len(state["param_groups"]) != len(own["param_groups"]):
        raise ValueError(f"it has {len(state['param_groups'])} groups of parameters")
    for group, other in zip(own["param_groups"], state["param_groups"], strict=True):
        for name, value in group.items():
            if type(other[name]) is not type(value) or (name == "params" and other[name] != value):
                raise ValueError(f"its setting {name!r} is {str(other[name])[:40]}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, entry in state["state"].items():
        shape = parameters[number].shape
        for name, expected in (("step", torch.Size([])), ("exp_avg", shape), ("exp_avg_sq", shape)):
            found = entry[name]
            if not isinstance(found, torch.Tensor) or not found.is_floating_point() or found.shape != expected:
                raise ValueError(
                    f"the entry {name!r} of parameter {number} is not a tensor of the shape {list(expected)}"
                )
    optimizer.load_state_dict(dict(state))


def learning_rate(config: OptimizerConfig, step: int) -> float:
    """Learning rate at `step`, counted from 0; a pure function, so that no scheduler state has to be saved."""
    rate = config.learning_rate
    if step < config.warmup_steps:
        return rate * (step + 1) / config.warmup_steps
    step = max(0, step - config.warmup_steps - config.constant_steps)
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
