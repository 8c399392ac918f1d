"""The one resampler of the project: soxr at its HQ setting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from codectok.errors import InputError


def resample(waveform: np.ndarray, sample_rate: int, target_rate: int) -> np.ndarray:
    """Resample `waveform` float32 [n] from `sample_rate` to `target_rate` Hz with soxr HQ.

    The result has round(n * target_rate / sample_rate) samples and equals that of soxr's streaming interface.
    """
    _check_rate(sample_rate)
    if sample_rate == target_rate:
        return waveform
    return soxr.resample(waveform, sample_rate, target_rate, quality="HQ")


def resample_blocks(blocks: Iterable[np.ndarray], sample_rate: int, target_rate: int) -> Iterator[np.ndarray]:
    """`resample` of a clip that arrives in blocks float32 [n]: the same samples, to the bit."""
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
