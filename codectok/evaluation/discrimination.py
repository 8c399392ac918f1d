"""Checks that metrics tell the original from worse controls, such as silence and noise, on the data at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from codectok.evaluation.metrics.base import Quantity

from .bootstrap import intervals


@dataclass(frozen=True)
class Discrimination:
    """The floors that a quantity tells from the original, and the others.

    Attributes:
        told_apart: floors that are worse than the original; the interval of the paired difference lies beyond zero.
        not_told_apart: floors that may be as good as the original.
        undefined: floors where fewer than two recordings define both values, so that nothing can be said.
    """

    told_apart: tuple[str, ...]
    not_told_apart: tuple[str, ...]
    undefined: tuple[str, ...]


def discrimination(
    quantities: Sequence[Quantity],
    original: np.ndarray,
    floors: Mapping[str, np.ndarray],
    groups: np.ndarray,
    seed: int = 0,
) -> dict[str, Discrimination]:
    """Compare the original with floors, clip by clip, for each quantity that has a better direction.

    Args:
        quantities: columns of the values.
        original: float64 [n_clips, n_quantities] of the original as its own reconstruction, NaN where undefined.
        floors: values of the same shape by name, such as "silence" and "noise".
        groups: int [n_clips], the recording of each clip.
        seed: of the bootstrap.
    """
    signs = np.array([{"higher": 1.0, "lower": -1.0, "neither": np.nan}[quantity.better] for quantity in quantities])
    low = {name: intervals((original - floor) * signs, groups, seed).low for name, floor in floors.items()}
    return {
        quantity.name: Discrimination(
            told_apart=tuple(name for name in floors if low[name][column] > 0),
            not_told_apart=tuple(name for name in floors if low[name][column] <= 0),
            undefined=tuple(name for name in floors if np.isnan(low[name][column])),
        )
        for column, quantity in enumerate(quantities)
        if quantity.better != "neither"
    }
