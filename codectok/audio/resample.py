"""The one resampler of the project: soxr at its HQ setting."""

from __future__ import annotations

import numpy as np
import soxr

from ..errors import InputError


def resample(waveform: np.ndarray, sample_rate: int, target_rate: int) -> np.ndarray:
    """Resample `waveform` float32 [n] from `sample_rate` to `target_rate` Hz with soxr HQ.

    The result has round(n * target_rate / sample_rate) samples and equals that of soxr's streaming interface.
    """
    if not isinstance(sample_rate, int | np.integer) or sample_rate <= 0:
        raise InputError(f"A sample rate must be a whole number of Hz above 0, not {sample_rate!r}.")
    if sample_rate == target_rate:
        return waveform
    return soxr.resample(waveform, sample_rate, target_rate, quality="HQ")
