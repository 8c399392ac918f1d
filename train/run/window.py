"""Averages of metrics over a window of steps and all ranks, and the speed of training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from codectok.train.distributed import Ranks


class MetricsWindow:
    """Sums the metrics of steps until it is reset.

    `means` and `state_dict` are collective: every rank must call them.
    """

    def __init__(self, ranks: Ranks, device: torch.device) -> None:
        self._ranks, self._device = ranks, device
        self.reset()

    def reset(self) -> None:
        """Start an empty window."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._n_steps = self._n_loaded_steps = 0
        self._started, self._paused_seconds = time.monotonic(), 0.0

    @property
    def is_empty(self) -> bool:
        """True if no step was added."""
        return self._n_steps == 0

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Add the scalars of a step of this rank."""
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._n_steps += 1

    def means(self) -> dict[str, float]:
        """Means over the steps so far and over all ranks; empty if there was no step."""
        sums = self._sums_over_ranks()
        if not sums:
            return {}
        values = torch.stack(list(sums.values())).tolist()
        return {name: value / self._counts[name] for name, value in zip(sums, values, strict=True)}

    def steps_per_second(self) -> float:
        """Speed of the steps added since the window was reset or loaded, without pauses."""
        elapsed = time.monotonic() - self._started - self._paused_seconds
        return (self._n_steps - self._n_loaded_steps) / elapsed

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time inside this context from the speed."""
        started = time.monotonic()
        yield
        self._paused_seconds += time.monotonic() - started

    def state_dict(self) -> dict[str, Any]:
        """The sums so far, equal on all ranks.

        This window continues with the same sums, so that later means have the bits of a run that resumes from here.
        """
        self._sums = self._sums_over_ranks()
        return {"sums": dict(self._sums), "counts": dict(self._counts), "steps": self._n_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the window of `state_dict`; raise a `ValueError` if `state` is not one."""
        sums, counts, steps = state["sums"], state["counts"], state["steps"]
        scalars = all(isinstance(total, Tensor) and total.dim() == 0 for total in sums.values())
        if (
            not scalars
            or sums.keys() != counts.keys()
            or not all(isinstance(count, int | float) for count in [*counts.values(), steps])
        ):
            raise ValueError("its window of metrics holds other values than numbers")
        self._sums, self._counts, self._n_steps = dict(state["sums"]), dict(state["counts"]), state["steps"]
        self._n_loaded_steps = self._n_steps

    def _sums_over_ranks(self) -> dict[str, Tensor]:
        """Sums over the steps, averaged over the ranks."""
        if not self._sums:
            return {}
        sums = torch.stack([total.to(self._device) for total in self._sums.values()])
        return dict(zip(self._sums, self._ranks.mean(sums).unbind(), strict=True))
