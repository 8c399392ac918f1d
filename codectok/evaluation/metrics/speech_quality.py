"""Intelligibility (STOI) and quality (PESQ) of reconstructed speech as functions, for validation during training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec

import numpy as np

from .base import Metric, Pair, Signal, UndefinedMetricError
from .conditions import check_pair
from .intelligibility import Stoi
from .wide_band_pesq import Pesq

Measure = Callable[[np.ndarray, np.ndarray, int], float | None]


def installed_measures() -> Mapping[str, Measure]:
    """Return the metrics whose packages are installed, by name."""
    return {
        metric.quantities[0].name: partial(_measure, metric)
        for metric in (Stoi(), Pesq())
        if all(find_spec(module) for module in metric.packages)
    }


def _measure(metric: Metric, original: np.ndarray, reconstruction: np.ndarray, sample_rate: int) -> float | None:
    """Value of aligned clips [n]; None if it is undefined."""
    pair = Pair(Signal(original, sample_rate), Signal(reconstruction, sample_rate))
    try:
        check_pair(pair)
        return metric.measure(pair)[metric.quantities[0].name]
    except UndefinedMetricError:
        return None
