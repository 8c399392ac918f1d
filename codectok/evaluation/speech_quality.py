"""Intelligibility and quality of reconstructed speech by STOI and PESQ (extra `eval`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..audio.resample import resample

PESQ_RATE = 16_000

Measure = Callable[[np.ndarray, np.ndarray, int], float | None]


def installed_measures() -> Mapping[str, Measure]:
    """Those of the measures whose packages are installed, by name."""
    measures: dict[str, tuple[str, Measure]] = {"stoi": ("pystoi", stoi), "pesq": ("pesq", pesq)}
    return {name: measure for name, (package, measure) in measures.items() if find_spec(package) is not None}


def stoi(original: np.ndarray, reconstruction: np.ndarray, sample_rate: int) -> float | None:
    """Short-time objective intelligibility (Taal et al. 2011) of aligned samples [n], at most 1.

    None for a clip that has too little speech in it.
    """
    from pystoi import stoi as measure

    found = float(measure(original, reconstruction, sample_rate))
    # The package warns of too few frames, and then gives this.
    return None if found <= 1e-5 else found


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
