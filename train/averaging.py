"""A moving average of weights, which is often better than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """The moving average of a module's parameters.

    Args:
        module: whose parameters are averaged; buffers are not.
        decay: what a step leaves of the average.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._parameters = dict(module.named_parameters())
        self._averages = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._blend = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now."""
        self._blend(list(self._averages.values()), [p.detach() for p in self._parameters.values()], None)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters are the averages while this lasts."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state_dict(self) -> dict[str, Tensor]:
        """The averages."""
        return self._averages

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for name, average in self._averages.items():
            average.copy_(state[name])

    def _exchange(self) -> None:
        for name, parameter in self._parameters.items():
            self._averages[name], parameter.data = parameter.data, self._averages[name]
