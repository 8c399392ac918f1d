"""Checks and conversions of samples in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from torch import Tensor

from codectok.errors import AudioError, InputError

MAX_CHANNELS = 64
# Floats beyond this are taken for integers that were not scaled.
FAR_BEYOND = 8.0


def mono_blocks(blocks: Iterable[Tensor | np.ndarray]) -> Iterator[np.ndarray]:
    """Apply `to_mono` to successive blocks of one clip, and skip empty ones.

    Raises:
        InputError: `blocks` is a single array, or a block is not an array [n] or [channels, n].
        AudioError: see `to_mono`.
    """
    if isinstance(blocks, Tensor | np.ndarray):
        raise InputError("The blocks of a clip must be a sequence of arrays; put a single array into a list.")
    found = 0
    for block in blocks:
        if not isinstance(block, Tensor | np.ndarray):
            raise InputError("Every block of a clip must be an array [n] or [channels, n].")
        if block.ndim not in (1, 2) or block.shape[-1]:
            mono = to_mono(block, found)
            found += len(mono)
            yield mono


def to_mono(waveform: Tensor | np.ndarray, offset: int = 0) -> np.ndarray:
    """Average the channels of `waveform` [n] or [channels, n] to float32 [n].

    `offset` is the index of its first sample in the clip, for messages.

    Raises:
        InputError: another shape, or integers.
        AudioError: no samples ("empty"), samples that are NaN or infinite ("not_finite"), or samples far beyond
            [-1, 1] ("clipped").
    """
    if isinstance(waveform, Tensor):
        waveform = waveform.detach().cpu()
        samples = (waveform.float() if waveform.is_floating_point() else waveform).numpy()
    else:
        samples = np.asarray(waveform)
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= len(samples) <= MAX_CHANNELS):
        raise InputError(f"A waveform must be [n] or [channels, n], but has shape {list(samples.shape)}.")
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(f"A waveform must hold floats in [-1, 1], but holds {samples.dtype}.")
    samples = samples.astype(np.float32, copy=False)
    mono = samples if samples.ndim == 1 else samples.mean(axis=0, dtype=np.float32)
    if len(mono) == 0:
        raise AudioError("The waveform has no samples.", "empty")
    peak = check_finite(mono, "The waveform", offset)
    if samples is not mono:
        peak = peak_of(samples)
    if peak > FAR_BEYOND:
        raise AudioError(
            f"The waveform has samples up to {peak:,.5g}, far beyond [-1, 1]; divide scaled integers by their full"
            " scale, such as 32,768.",
            "clipped",
        )
    return np.ascontiguousarray(mono)


def peak_of(samples: np.ndarray) -> float:
    """Largest absolute value of `samples`: 0 if there are none, NaN if one of them is NaN."""
    return max(float(samples.max()), -float(samples.min())) if samples.size else 0.0


def check_finite(block: np.ndarray, where: str, offset: int = 0) -> float:
    """Return the largest magnitude of `block` [n] or [n, channels], or raise an `AudioError` if a sample is not finite.

    `offset` is the index of its first sample in the file that `where` names.
    """
    peak = peak_of(block)  # NaN if a sample is
    if not math.isfinite(peak):
        finite = np.isfinite(block)
        first = offset + int(finite.reshape(len(block), -1).all(axis=1).argmin())
        raise AudioError(f"{where} has samples that are not finite numbers, the first at {first}.", "not_finite")
    return peak
