"""Intelligibility of speech: STOI and extended STOI."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

import numpy as np

from .base import Metric, Pair, Quantity, UndefinedMetricError
from .conditions import is_silent, require_rate, require_seconds

RATE = 10_000
# 30 frames of 256 samples with a hop of 128 at 10 kHz are compared; shorter clips have no value.
SHORTEST = (29 * 128 + 256) / RATE
# pystoi returns this if too few frames are left without pauses; all other values are results, also negative ones.
TOO_FEW_FRAMES = 1e-5


class Stoi(Metric):
    """Short-time objective intelligibility (Taal et al. 2011)."""

    quantities = (Quantity("stoi", "higher", "intelligibility of speech, -1 to 1"),)
    packages: ClassVar[Mapping[str, str]] = {"pystoi": "pystoi"}

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return `stoi`; 0 for a silent reconstruction, undefined below 0.4 s of speech or 10 kHz."""
        return {"stoi": _stoi(pair, extended=False)}


class ExtendedStoi(Metric):
    """Extended short-time objective intelligibility (Jensen and Taal 2016), for distortions that fluctuate."""

    quantities = (Quantity("estoi", "higher", "intelligibility of speech with fluctuating distortions, -1 to 1"),)
    packages: ClassVar[Mapping[str, str]] = {"pystoi": "pystoi"}

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return `estoi`; 0 for a silent reconstruction, undefined below 0.4 s of speech or 10 kHz."""
        return {"estoi": _stoi(pair, extended=True)}


def _stoi(pair: Pair, extended: bool) -> float:
    require_rate(pair, RATE)
    require_seconds(pair, SHORTEST)
    if is_silent(pair.reconstruction):
        # Envelopes without a course do not correlate; the extended variant returns the correlation with rounding noise.
        return 0.0
    from pystoi import stoi

    original, reconstruction = pair.original.samples, pair.reconstruction.samples
    with warnings.catch_warnings(), _fixed_seed():
        # pystoi warns about too few frames.
        warnings.simplefilter("ignore", RuntimeWarning)
        found = float(stoi(original, reconstruction, pair.original.sample_rate, extended=extended))
    if found == TOO_FEW_FRAMES:
        raise UndefinedMetricError(f"the original holds less than {SHORTEST:g} s without pauses")
    return found


@contextmanager
def _fixed_seed() -> Iterator[None]:
    """pystoi adds noise of the global generator, at the size of rounding errors."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)
