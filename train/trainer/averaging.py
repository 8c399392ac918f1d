"""Moving average of weights, which often makes a better codec than the last weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from codectok.model.quantization.codebook import EMACodebook


class WeightAverage:
    """Moving average of a module's parameters and codebooks, as far as they are trained.

    Args:
        module: the module whose weights are averaged, in training mode; parts that stay in evaluation mode have fixed
            codebooks.
        decay: share of the old average kept at each step; smaller during the first steps.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        # Codebooks are buffers, but must match the weights around them.
        self._codebooks = {
            f"{name}.embedding": each
            for name, each in module.named_modules()
            if isinstance(each, EMACodebook) and each.training
        }
        codebooks = {name: each.embedding for name, each in self._codebooks.items()}
        trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        self._weights: dict[str, Tensor] = {**trained, **codebooks}
        self._averages = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._decay, self._steps = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the current weights."""
        self._steps += 1
        decay = min(self._decay, self._steps / (10 + self._steps))
        torch._foreach_lerp_(list(self._averages.values()), [w.detach() for w in self._weights.values()], 1 - decay)
        for name, codebook in self._codebooks.items():
            if codebook.replaced is not None:
                # The old position of a replaced code must not enter its average.
                average = self._averages[name]
                average.copy_(torch.where(codebook.replaced.unsqueeze(1), codebook.embedding, average))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Exchange the weights for their averages inside this context."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state_dict(self) -> dict[str, Any]:
        """The averages and the number of steps in them."""
        return {"steps": self._steps, "averages": self._averages}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from `state_dict`; raise a `ValueError` if `state` is not one."""
        for name, average in self._averages.items():
            found = state["averages"][name]
            if found.shape != average.shape:
                raise ValueError(f"the average of {name!r} has the shape {list(found.shape)}")
            average.copy_(found)
        self._steps = state["steps"]

    def _exchange(self) -> None:
        for name, weight in self._weights.items():
            self._averages[name], weight.data = weight.data, self._averages[name]


def averaged(average: WeightAverage | None) -> AbstractContextManager[None]:
    """Context in which a module has its averaged weights, if there is an `average`."""
    return nullcontext() if average is None else average.applied()
