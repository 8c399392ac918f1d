"""Errors of fundamental frequency and voicing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from .base import Metric, Pair, Quantity, Signal, UndefinedMetricError
from .conditions import is_silent, refuse_silent_reconstruction, require_seconds

RATE = 16_000
LOWEST, HIGHEST = 60.0, 500.0  # Hz
FRAME, HOP = 1024, 256  # samples: 64 ms and 16 ms
SHORTEST = 0.25  # s


class F0Error(Metric):
    """Error of F0 by probabilistic YIN (Mauch and Dixon 2014) from 60 to 500 Hz, over frames voiced in both clips."""

    quantities = (
        Quantity("f0", "lower", "mean absolute error of F0 in cents"),
        Quantity("f0_median", "lower", "median absolute error of F0 in cents, in steps of 10"),
    )
    packages: ClassVar[Mapping[str, str]] = {"librosa": "librosa"}

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return both errors; undefined if no frame is voiced in both clips."""
        require_seconds(pair, SHORTEST)
        refuse_silent_reconstruction(pair)
        original, reconstruction = _track(pair.original), _track(pair.reconstruction)
        voiced = ~np.isnan(original) & ~np.isnan(reconstruction)
        if not voiced.any():
            raise UndefinedMetricError("no frame is voiced in both clips")
        errors = np.abs(1200 * np.log2(reconstruction[voiced] / original[voiced]))
        return {"f0": float(errors.mean()), "f0_median": float(np.median(errors))}


class VoicingError(Metric):
    """Share of frames whose voicing differs, by the same tracks of F0."""

    quantities = (Quantity("voicing", "lower", "share of frames that are voiced in one clip only"),)
    packages: ClassVar[Mapping[str, str]] = {"librosa": "librosa"}

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return the share; silence is unvoiced."""
        require_seconds(pair, SHORTEST)
        original, reconstruction = (np.isnan(_track(one)) for one in (pair.original, pair.reconstruction))
        return {"voicing": float(np.mean(original != reconstruction))}


def _track(signal: Signal) -> np.ndarray:
    """F0 of each frame in Hz, float64 [n_frames]; NaN for unvoiced frames."""
    return signal.keep("f0", lambda: _compute_track(signal))


def _compute_track(signal: Signal) -> np.ndarray:
    from librosa import pyin

    samples = signal.at(RATE)
    if is_silent(signal):
        return np.full(1 + len(samples) // HOP, np.nan)
    track: np.ndarray = pyin(samples, fmin=LOWEST, fmax=HIGHEST, sr=RATE, frame_length=FRAME, hop_length=HOP)[0]
    return track
