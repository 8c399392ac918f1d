"""Intelligibility (STOI) and quality (PESQ) of reconstructed speech; needs the extra `eval`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from codectok.audio.resample import resample

PESQ_RATE = 16_000
# STOI compares 30 frames of 256 samples with a hop of 128 at 10 kHz; shorter clips have no value.
STOI_SECONDS = (29 * 128 + 256) / 10_000
# pystoi returns this if too few frames are left without pauses; all other values are results, also negative ones.
TOO_FEW_FRAMES = 1e-5

Measure = Callable[[np.ndarray, np.ndarray, int], float | None]


def installed_measures() -> Mapping[str, Measure]:
    """Return the metrics whose packages are installed, by name."""
    return {name: measure for name, (package, measure) in MEASURES.items() if find_spec(package) is not None}


def missing_measures() -> Mapping[str, str]:
    """Return the packages that are not installed, by the names of their metrics."""
    return {name: package for name, (package, _) in MEASURES.items() if find_spec(package) is None}


def stoi(original: np.ndarray, reconstruction: np.ndarray, sample_rate: int) -> float | None:
    """Short-time objective intelligibility (Taal et al. 2011) of aligned clips [n], from -1 to 1.

    Returns None if the original is silent or holds too little speech.
    """
    from pystoi import stoi as measure

    if len(original) < STOI_SECONDS * sample_rate or np.ptp(original) == 0:
        return None
    with warnings.catch_warnings():
        # pystoi warns about too few frames.
        warnings.simplefilter("ignore", RuntimeWarning)
        found = float(measure(original, reconstruction, sample_rate))
    return None if found == TOO_FEW_FRAMES else found


def pesq(original: np.ndarray, reconstruction: np.ndarray, sample_rate: int) -> float | None:
    """Wide-band PESQ (ITU-T P.862.2) of aligned clips [n], from 1 to 4.64.

    Returns None if the clip holds no utterance or is too short.
    """
    import pesq as package

    resampled: list[Any] = [resample(samples, sample_rate, PESQ_RATE) for samples in (original, reconstruction)]
    try:
        return float(package.pesq(PESQ_RATE, *resampled, mode="wb"))
    except (package.NoUtterancesError, package.BufferTooShortError):
        return None


# Each with the package that it needs.
MEASURES: Mapping[str, tuple[str, Measure]] = {"stoi": ("pystoi", stoi), "pesq": ("pesq", pesq)}
