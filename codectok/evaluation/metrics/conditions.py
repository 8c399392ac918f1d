"""Conditions under which metrics are defined."""

from __future__ import annotations

import numpy as np

from .base import Pair, Signal, UndefinedMetricError

# Half a step of 16 bits: smaller deviations from the mean become a constant there.
SILENCE = 2.0**-16
# Models that rate speech return numbers for any length; a syllable takes about 0.2 s.
SHORTEST_SPEECH = 0.5
WIDE_BAND_RATE = 16_000
# Full scale is 1. Squares of larger samples come near the limit of float32.
LARGEST = 1e9


def check_pair(pair: Pair) -> None:
    """Check the conditions that all metrics share.

    Raises:
        UndefinedMetricError: the clips differ in rate or length, are empty, hold samples that are not finite, or the
            original is silent.
    """
    original, reconstruction = pair.original, pair.reconstruction
    if original.sample_rate != reconstruction.sample_rate:
        raise UndefinedMetricError(
            f"the sample rates differ: {original.sample_rate:,} and {reconstruction.sample_rate:,} Hz"
        )
    if len(original.samples) != len(reconstruction.samples):
        raise UndefinedMetricError(
            f"the lengths differ: {len(original.samples):,} and {len(reconstruction.samples):,} samples"
        )
    if len(original.samples) == 0:
        raise UndefinedMetricError("the clip is empty")
    for name, signal in (("original", original), ("reconstruction", reconstruction)):
        if not is_finite(signal):
            raise UndefinedMetricError(f"the {name} holds samples that are not finite or above {LARGEST:g}")
    if is_silent(original):
        raise UndefinedMetricError("the original is silent")


def is_finite(signal: Signal) -> bool:
    """Return True if all samples are finite, and at most 10^9 times full scale."""
    return signal.keep("is_finite", lambda: bool((np.abs(signal.samples) <= LARGEST).all()))


def is_silent(signal: Signal) -> bool:
    """Return True if no sample deviates from the mean by half a step of 16 bits."""
    return signal.keep("is_silent", lambda: _is_silent(signal.samples))


def refuse_silent_reconstruction(pair: Pair) -> None:
    """Raise `UndefinedMetricError` if the reconstruction is silent."""
    if is_silent(pair.reconstruction):
        raise UndefinedMetricError("the reconstruction is silent")


def require_seconds(pair: Pair, seconds: float) -> None:
    """Raise `UndefinedMetricError` if the clip is shorter."""
    if pair.original.seconds < seconds:
        raise UndefinedMetricError(f"the clip is shorter than {seconds:g} s")


def require_samples(pair: Pair, count: int) -> None:
    """Raise `UndefinedMetricError` if the clip has fewer samples."""
    if len(pair.original.samples) < count:
        raise UndefinedMetricError(f"the clip has fewer than {count:,} samples")


def require_rate(pair: Pair, sample_rate: int) -> None:
    """Raise `UndefinedMetricError` if the sample rate of the recording is lower."""
    if pair.original.source_rate < sample_rate:
        raise UndefinedMetricError(f"the sample rate is below {sample_rate:,} Hz")


def require_speech_to_rate(pair: Pair) -> None:
    """Check that a model of speech can rate the reconstruction: wide band, 0.5 s at least, and not silent."""
    require_rate(pair, WIDE_BAND_RATE)
    require_seconds(pair, SHORTEST_SPEECH)
    refuse_silent_reconstruction(pair)


def _is_silent(samples: np.ndarray) -> bool:
    if len(samples) == 0:
        return True
    mean = float(samples.mean(dtype=np.float64))
    return max(float(samples.max()) - mean, mean - float(samples.min())) < SILENCE
