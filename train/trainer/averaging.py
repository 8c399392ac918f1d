"""A moving average of weights, which is often better than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from codectok.model.quantization.codebook import EMACodebook


class WeightAverage:
    """The moving average of a module's parameters and codebooks.

    Args:
        module: whose weights are averaged.
        decay: what a step leaves of the average in the long run; at first, when the average is of few steps, less.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        # They are buffers, but what they hold belongs to the weights beside them.
        self._codebooks = {
            f"{name}.embedding": each for name, each in module.named_modules() if isinstance(each, EMACodebook)
        }
        codebooks = {name: each.embedding for name, each in self._codebooks.items()}
        self._weights: dict[str, Tensor] = {**dict(module.named_parameters()), **codebooks}
        self._averages = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._decay, self._steps = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        self._steps += 1
        decay = min(self._decay, self._steps / (10 + self._steps))
        torch._foreach_lerp_(list(self._averages.values()), [w.detach() for w in self._weights.values()], 1 - decay)
        for name, codebook in self._codebooks.items():
            if codebook.replaced is not None:
                # Nobody needs the average of where a code was of no use and where it is now.
                average = self._averages[name]
                average.copy_(torch.where(codebook.replaced.unsqueeze(1), codebook.embedding, average))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The weights are the averages while this lasts."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state_dict(self) -> dict[str, Any]:
        """The averages, and of how many steps they are."""
        return {"steps": self._steps, "averages": self._averages}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for name, average in self._averages.items():
            average.copy_(state["averages"][name])
        self._steps = state["steps"]

    def _exchange(self) -> None:
        for name, weight in self._weights.items():
            self._averages[name], weight.data = weight.data, self._averages[name]
