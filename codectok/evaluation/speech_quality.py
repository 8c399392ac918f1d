"""Intelligibility and quality of reconstructed speech by STOI and PESQ (extra `eval`)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from codectok.audio.resample import resample

PESQ_RATE = 16_000
# 30 frames of 256 samples, each 128 after the one before, at 10 kHz: it compares nothing shorter.
STOI_SECONDS = (29 * 128 + 256) / 10_000
# What the package gives where too little is left without pauses; any other value is one, also below zero.
TOO_FEW_FRAMES = 1e-5

Measure = Callable[[np.ndarray, np.ndarray, int], float | None]


def installed_measures() -> Mapping[str, Measure]:
    """Those of the measures whose packages are installed, by name."""
    return {name: measure for name, (package, measure) in MEASURES.items() if find_spec(package) is not None}


def missing_measures() -> Mapping[str, str]:
    """The packages of the other measures, by the measures' names."""
    return {name: package for name, (package, _) in MEASURES.items() if find_spec(package) is None}


def stoi(original: np.ndarray, reconstruction: np.ndarray, sample_rate: int) -> float | None:
    """Short-time objective intelligibility (Taal et al. 2011) of aligned samples [n], from -1 to 1.

    None for an original that has too little speech in it, or is silent.
    """
    from pystoi import stoi as measure

    if len(original) < STOI_SECONDS * sample_rate or np.ptp(original) == 0:
        return None
    with warnings.catch_warnings():
        # The package warns of too few frames.
        warnings.simplefilter("ignore", RuntimeWarning)
        found = float(measure(original, reconstruction, sample_rate))
    return None if found == TOO_FEW_FRAMES else found


def pesq(original: np.ndarray, reconstruction: np.ndarray, sample_rate: int) -> float | None:
    """Wide-band PESQ (ITU-T P.862.2) of aligned samples [n], from 1 to 4.64.

    None for a clip in which it finds no utterance, or which is too short for one.
    """
    import pesq as package

    heard: list[Any] = [resample(samples, sample_rate, PESQ_RATE) for samples in (original, reconstruction)]
    try:
        return float(package.pesq(PESQ_RATE, *heard, mode="wb"))
    except (package.NoUtterancesError, package.BufferTooShortError):
        return None


# With the package that each of them needs.
MEASURES: Mapping[str, tuple[str, Measure]] = {"stoi": ("pystoi", stoi), "pesq": ("pesq", pesq)}
