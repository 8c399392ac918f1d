"""Optimizers, AdamW and Muon, and their learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon

from codectok.train.distributed import Ranks
from codectok.train.recipe import OptimizerConfig


class ScheduledOptimizer:
    """Takes steps on the parameters of a module at the learning rates of a schedule.

    Args:
        module: its parameters that require gradients are updated.
        config: of the optimizer; with `method: muon` the weights of `nn.Linear` layers are Muon's, all else AdamW's.
        ranks: which hold the same parameters.

    Attributes:
        adamw: updates all parameters that Muon does not.
        muon: updates the weights of linear layers; None if not configured.

    Raises:
        ValueError: Muon is configured, and the module has no linear layer to train.
    """

    def __init__(self, module: nn.Module, config: OptimizerConfig, ranks: Ranks | None = None) -> None:
        self._config, self._ranks = config, ranks or Ranks()
        self._matrices = _matrices(module) if config.method == "muon" else []
        of_muon = {id(matrix) for matrix in self._matrices}
        others = [parameter for parameter in _trained(module) if id(parameter) not in of_muon]
        rate, decay = config.learning_rate, config.weight_decay
        self.adamw = AdamW(others, lr=rate, betas=config.betas, weight_decay=decay, fused=True)
        # Updates are as large as those of AdamW, so that one learning rate suits both.
        self.muon = Muon(self._matrices, rate, decay, adjust_lr_fn="match_rms_adamw") if self._matrices else None
        self._parameters = [*others, *self._matrices]

    def step(self, number: int) -> None:
        """Clip the gradients if configured, take step `number`, counted from 0, and clear the gradients."""
        if self._config.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._config.max_gradient_norm)
        for optimizer in (self.adamw, self.muon):
            if optimizer is not None:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(self._config, number)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        # On different hardware, Muon's products are rounded differently and the weights of the ranks would drift apart.
        for matrix in self._matrices:
            self._ranks.broadcast(matrix.detach())

    def state_dict(self) -> dict[str, Any]:
        """State of AdamW, with that of Muon as its entry "muon" if there is one."""
        state = self.adamw.state_dict()
        if self.muon is not None:
            state["muon"] = self.muon.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any], own_settings: bool = False) -> None:
        """Restore the state from `state_dict`.

        Args:
            state: to restore.
            own_settings: keep the configured betas, momentum and weight decay, instead of those of `state`.

        Raises:
            ValueError: the state is not one of this optimizer; torch itself would fail at the next step.
        """
        others = {name: value for name, value in state.items() if name != "muon"}
        if (self.muon is not None) != ("muon" in state):
            raise ValueError("it lacks the state of Muon" if self.muon else "it has a state of Muon")
        _load(self.adamw, others, own_settings, ("step", "exp_avg", "exp_avg_sq"))
        if self.muon is not None:
            _load(self.muon, state["muon"], own_settings, ("momentum_buffer",))


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _matrices(module: nn.Module) -> list[nn.Parameter]:
    """Weights of all linear layers, once each."""
    weights = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Linear)}
    matrices = [parameter for parameter in _trained(module) if id(parameter) in weights]
    if not matrices:
        raise ValueError("Muon is for linear layers, and there are none")
    return matrices


def _load(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], own_settings: bool, names: Sequence[str]) -> None:
    """Restore the state of one optimizer; `names` are the entries of each of its parameters."""
    own = optimizer.state_dict()
    if own_settings:
        state = {**state, "param_groups": own["param_groups"]}
    if len(state["param_groups"]) != len(own["param_groups"]):
        raise ValueError(f"it has {len(state['param_groups'])} groups of parameters")
    for group, other in zip(own["param_groups"], state["param_groups"], strict=True):
        for name, value in group.items():
            if type(other[name]) is not type(value) or (name == "params" and other[name] != value):
                raise ValueError(f"its setting {name!r} is {str(other[name])[:40]}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, entry in state["state"].items():
        for name in names:
            shape = torch.Size([]) if name == "step" else parameters[number].shape
            found = entry[name]
            if not isinstance(found, Tensor) or not found.is_floating_point() or found.shape != shape:
                raise ValueError(f"the entry {name!r} of parameter {number} is not a tensor of the shape {list(shape)}")
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
