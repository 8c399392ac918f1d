"""Resampling with soxr HQ, which all of codectok uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from codectok.errors import InputError


def resample(waveform: np.ndarray, sample_rate: int, target_rate: int) -> np.ndarray:
    """Resample `waveform` float32 [n] from `sample_rate` to `target_rate` Hz.

    The result has round(n * target_rate / sample_rate) samples, equal to the result of `resample_blocks`.

    Raises:
        InputError: `sample_rate` is not a whole number above 0.
    """
    _check_rate(sample_rate)
    if sample_rate == target_rate:
        return waveform
    resampled: np.ndarray = soxr.resample(waveform, sample_rate, target_rate, quality="HQ")
    return resampled


def resample_blocks(blocks: Iterable[np.ndarray], sample_rate: int, target_rate: int) -> Iterator[np.ndarray]:
    """Resample a clip that arrives in blocks float32 [n]; the samples are bit-identical to those of `resample`."""
    _check_rate(sample_rate)
    if sample_rate == target_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(sample_rate, target_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _check_rate(sample_rate: int) -> None:
    if not isinstance(sample_rate, int | np.integer) or sample_rate <= 0:
        raise InputError(f"A sample rate must be a whole number of Hz above 0, not {sample_rate!r}.")
