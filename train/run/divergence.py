"""Detects runs that diverge, before they are saved."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from codectok.train.config import TrainConfig
from codectok.train.distributed import Ranks

# The weighted sum of all loss terms of the generator.
TOTAL_LOSS = "generator"


def mel_metric(config: TrainConfig) -> str:
    """Name of the mel error that is shown and checked: the one of the first term."""
    return f"mel_{config.loss.mel[0].n_fft}"


class DivergenceMonitor:
    """Remembers the first loss and the lowest error of a run, and compares later metrics with them."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._mel = mel_metric(config)
        self._lowest_error = math.inf
        self._first_loss: Tensor | None = None

    def observe_step(self, losses: dict[str, Tensor], ranks: Ranks) -> None:
        """Remember the loss of the first step, averaged over the ranks."""
        if self._first_loss is None:
            self._first_loss = ranks.mean(losses[TOTAL_LOSS].clone())

    def observe_window(self, metrics: dict[str, float]) -> None:
        """Remember the lowest mel error of a full window."""
        self._lowest_error = min(self._lowest_error, metrics[self._mel])

    def reason(self, metrics: dict[str, float]) -> str | None:
        """Why `metrics` show that the run has diverged, None if they do not.

        A metric is not finite; or the mel error is `explosion` times its lowest value; or the generator's loss is
        `loss_explosion` times its first value. The last one is needed because the mel error is bounded, and at the
        first steps not far from its bound.
        """
        config = self._config
        not_finite = [name for name, value in metrics.items() if not math.isfinite(value)]
        if not_finite:
            return f"{', '.join(not_finite)} is not a finite number"
        error, loss = metrics.get(self._mel, 0.0), metrics.get(TOTAL_LOSS, 0.0)
        if error > config.explosion * self._lowest_error:
            lowest = f"{self._lowest_error:.3g} at its best"
            return f"{self._mel} is {error:.3g}, after {lowest} (explosion={config.explosion:g})"
        if self._first_loss is not None and loss > config.loss_explosion * float(self._first_loss):
            first = f"{float(self._first_loss):.3g} at the first step"
            return f"the generator's loss is {loss:.3g}, after {first} (loss_explosion={config.loss_explosion:g})"
        return None

    def state_dict(self) -> dict[str, Any]:
        """The lowest error and the first loss."""
        return {"lowest_error": self._lowest_error, "first_loss": self._first_loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from `state_dict`; raise a `ValueError` if `state` is not one."""
        first = state["first_loss"]
        scalar = isinstance(first, Tensor) and first.dim() == 0
        if not isinstance(state["lowest_error"], float | int) or not (scalar or first is None):
            raise ValueError("its lowest error or its first loss is not a number")
        self._lowest_error, self._first_loss = state["lowest_error"], state["first_loss"]
