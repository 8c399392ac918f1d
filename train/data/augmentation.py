"""Augmentation of training segments: level, background and band limit, drawn for every position of the stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .config import AugmentationConfig

# Keeps these random numbers apart from others drawn with the same seed.
AUGMENTATION = 2
# A background is a sample at most so many positions earlier, so that it is in a shard that is read anyway.
FARTHEST_BACKGROUND = 64


@dataclass(frozen=True)
class Change:
    """Changes of one segment.

    Attributes:
        gain: in dB.
        background: position in the stream of the segment that is mixed into this one; None for none.
        background_level: in dB relative to this segment.
        limit: frequencies above it, in Hz, are removed; None for none.
    """

    gain: float
    background: int | None
    background_level: float
    limit: float | None


def draw_change(config: AugmentationConfig, seed: int, position: int) -> Change:
    """Draw the change of the segment at `position`, which depends on the arguments alone."""
    random = np.random.default_rng([AUGMENTATION, seed, position])
    gain, background_level = random.uniform(*config.gain), random.uniform(*config.background_level)
    limit = random.uniform(*config.limit_hertz)
    # Earlier positions only: what follows may change when a run is resumed.
    background = position - int(random.integers(1, FARTHEST_BACKGROUND + 1))
    with_background, with_limit = random.random(2) < (config.background, config.limit)
    return Change(
        gain=gain,
        background=background if with_background and background >= 0 else None,
        background_level=background_level,
        limit=limit if with_limit else None,
    )


def apply_change(change: Change, waveform: np.ndarray, background: np.ndarray | None, sample_rate: int) -> None:
    """Change `waveform` float32 [n] in place; a result beyond full scale is scaled down to it.

    Args:
        change: see `draw_change`.
        waveform: a segment.
        background: float32 [n], the segment at `change.background`; None to mix nothing in.
        sample_rate: in Hz.
    """
    if change.limit is not None:
        spectrum = np.fft.rfft(waveform)
        spectrum[np.fft.rfftfreq(len(waveform), 1 / sample_rate) > change.limit] = 0
        waveform[:] = np.fft.irfft(spectrum, len(waveform))
    if background is not None and (own := _level(waveform)) and (other := _level(background)):
        waveform += background * np.float32(_factor(change.background_level) * own / other)
    waveform *= np.float32(_factor(change.gain))
    peak = float(np.abs(waveform).max(initial=0.0))
    if peak > 1:
        waveform /= np.float32(peak)


def _level(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.square(waveform, dtype=np.float64).mean()))


def _factor(decibels: float) -> float:
    return float(10 ** (decibels / 20))
