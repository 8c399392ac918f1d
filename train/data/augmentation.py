"""Augmentation of training segments: level, background, low pass and speed, drawn for every position of the stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .config import AugmentationConfig

# Keeps these random numbers apart from others drawn with the same seed.
AUGMENTATION = 2
# A background is a sample at most so many positions earlier, so that it is in a shard that is read anyway.
FARTHEST_BACKGROUND = 64
# Samples that are added at both ends of a segment while its speed changes.
SPEED_PADDING = 256


@dataclass(frozen=True)
class SegmentAugmentation:
    """Random changes of one segment.

    Attributes:
        gain: in dB.
        background_position: position in the stream of the segment that is mixed into this one; None for none.
        background_level: in dB relative to this segment.
        low_pass_hertz: frequencies above it are removed; None to keep all.
        speed: factor by which the segment is played faster.
    """

    gain: float
    background_position: int | None
    background_level: float
    low_pass_hertz: float | None
    speed: float = 1.0


def draw_augmentation(config: AugmentationConfig, seed: int, position: int) -> SegmentAugmentation:
    """Draw the augmentation of the segment at `position`; it depends on the arguments alone."""
    random = np.random.default_rng([AUGMENTATION, seed, position])
    gain, background_level = random.uniform(*config.gain), random.uniform(*config.background_level)
    low_pass_hertz = random.uniform(*config.low_pass_hertz)
    # Earlier positions only: what follows may change when a run is resumed.
    background = position - int(random.integers(1, FARTHEST_BACKGROUND + 1))
    has_background, has_low_pass = random.random(2) < (config.background_share, config.low_pass_share)
    slowest, fastest = config.speed
    speed = slowest * (fastest / slowest) ** random.random()
    return SegmentAugmentation(
        gain=gain,
        background_position=background if has_background and background >= 0 else None,
        background_level=background_level,
        low_pass_hertz=low_pass_hertz if has_low_pass else None,
        speed=speed,
    )


def augment(
    augmentation: SegmentAugmentation, waveform: np.ndarray, background: np.ndarray | None, sample_rate: int
) -> None:
    """Change `waveform` float32 [n] in place; a result beyond full scale is scaled down to it.

    Args:
        augmentation: see `draw_augmentation`.
        waveform: a segment.
        background: float32 [n], the segment to mix in; None for none.
        sample_rate: in Hz.
    """
    if augmentation.low_pass_hertz is not None:
        spectrum = np.fft.rfft(waveform)
        spectrum[np.fft.rfftfreq(len(waveform), 1 / sample_rate) > augmentation.low_pass_hertz] = 0
        waveform[:] = np.fft.irfft(spectrum, len(waveform))
    if background is not None:
        level, background_level = _root_mean_square(waveform), _root_mean_square(background)
        if level and background_level:
            waveform += background * np.float32(_factor(augmentation.background_level) * level / background_level)
    waveform *= np.float32(_factor(augmentation.gain))
    peak = float(np.abs(waveform).max(initial=0.0))
    if peak > 1:
        waveform /= np.float32(peak)


def change_speed(waveform: np.ndarray, out: np.ndarray) -> None:
    """Resample `waveform` float32 [m] to the length of `out` float32 [n]; the ends may shift by half a sample."""
    # The transform treats the signal as periodic; reflections keep its jump from end to beginning outside of `out`.
    padded = np.pad(waveform, SPEED_PADDING, mode="reflect")
    margin = round(SPEED_PADDING * len(out) / len(waveform))
    n_samples = len(out) + 2 * margin
    spectrum = np.fft.rfft(padded)[: n_samples // 2 + 1]
    resampled = np.fft.irfft(spectrum, n_samples) * (n_samples / len(padded))
    out[:] = resampled[margin : margin + len(out)]


def _root_mean_square(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.square(waveform, dtype=np.float64).mean()))


def _factor(decibels: float) -> float:
    return float(10 ** (decibels / 20))
