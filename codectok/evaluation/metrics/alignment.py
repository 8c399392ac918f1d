"""Alignment of a reconstruction with its original."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codectok.errors import InputError

from .base import Pair, Signal
from .conditions import is_finite, is_silent

# Seconds in both directions.
LARGEST_DELAY = 0.1
# The correlation of clips with as much distortion as signal is 0.71; at 0.5 distortion has three times the energy.
LOWEST_CORRELATION = 0.5
# Periodic clips have equal maxima, up to rounding; the smallest delay counts.
TIE = 1e-6
BLOCK = 1 << 18


@dataclass(frozen=True)
class Alignment:
    """A pair cut to the samples that both clips hold.

    Attributes:
        delay: of the reconstruction in samples, positive if it is late; None if it cannot be told, and no clip is
            shifted.
    """

    pair: Pair
    delay: int | None


def align(original: Signal, reconstruction: Signal, text: str | None = None, language: str | None = None) -> Alignment:
    """Shift a reconstruction by its delay within 0.1 s, and cut both clips to their overlap.

    The delay is the maximum of the absolute cross-correlation, normalized by the energies of the overlapping samples,
    after subtraction of the means. Clips of which nothing is cut are the same objects in the pair.

    Args:
        original, reconstruction: clips of one rate.
        text, language: of the original, for the pair.

    Raises:
        InputError: the sample rates differ.
    """
    if original.sample_rate != reconstruction.sample_rate:
        raise InputError(
            f"Clips at {original.sample_rate:,} and {reconstruction.sample_rate:,} Hz cannot be aligned; resample one."
        )
    delay = _delay(original, reconstruction)
    shift = delay or 0
    first, second = max(0, -shift), max(0, shift)
    length = max(0, min(len(original.samples) - first, len(reconstruction.samples) - second))
    pair = Pair(_cut(original, first, length), _cut(reconstruction, second, length), text, language)
    return Alignment(pair, delay)


def _cut(signal: Signal, start: int, length: int) -> Signal:
    if start == 0 and length == len(signal.samples):
        return signal
    return Signal(signal.samples[start : start + length], signal.sample_rate, signal.source_rate)


def _delay(original: Signal, reconstruction: Signal) -> int | None:
    signals = (original, reconstruction)
    # At least half of the shorter clip overlaps.
    largest = min(round(LARGEST_DELAY * original.sample_rate), *((len(one.samples)) // 2 for one in signals))
    if largest == 0 or not all(is_finite(one) and not is_silent(one) for one in signals):
        return None
    x, y = (one.samples - one.samples.mean(dtype=np.float64) for one in signals)
    length = min(len(x), len(y) + largest)
    correlations = np.abs(_correlations(x[:length], y, largest)) / _norms(x, y, largest)
    highest = correlations.max()
    if not highest >= LOWEST_CORRELATION:
        return None
    lags = np.flatnonzero(correlations >= highest - TIE) - largest
    return int(min(lags, key=lambda lag: (abs(lag), lag)))


def _correlations(x: np.ndarray, y: np.ndarray, largest: int) -> np.ndarray:
    """Sums of x[n] * y[n + lag] for lags from -largest to largest, by FFTs of blocks."""
    total = np.zeros(2 * largest + 1)
    for start in range(0, len(x), BLOCK):
        block = x[start : start + BLOCK]
        begin, end = start - largest, start + len(block) + largest
        window = y[max(0, begin) : max(0, end)]
        window = np.pad(window, (max(0, -begin), end - max(0, begin) - len(window)))
        size = 1 << (len(window) - 1).bit_length()
        product = np.fft.rfft(window, size) * np.conj(np.fft.rfft(block, size))
        total += np.fft.irfft(product, size)[: 2 * largest + 1]
    return total


def _norms(x: np.ndarray, y: np.ndarray, largest: int) -> np.ndarray:
    """Roots of the products of the energies of the samples that overlap, for lags from -largest to largest."""
    energy_x, energy_y = (np.concatenate([[0.0], np.cumsum(np.square(one))]) for one in (x, y))
    lags = np.arange(-largest, largest + 1)
    first = np.maximum(0, -lags)  # of x
    last = np.maximum(first, np.minimum(len(x), len(y) - lags))
    of_x = energy_x[last] - energy_x[first]
    of_y = energy_y[last + lags] - energy_y[first + lags]
    norms = np.sqrt(of_x * of_y)
    # Chance correlates overlaps that hold next to nothing of the clips.
    floor = 1e-3 * np.sqrt(energy_x[-1] * energy_y[-1])
    return np.where(norms > floor, norms, np.inf)
