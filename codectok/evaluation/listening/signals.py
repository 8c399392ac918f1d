"""Signals of a listening test: the loudest excerpt, the low anchor, equal loudness, and fades."""

from __future__ import annotations

import math

import numpy as np

from codectok.audio.analysis.k_weighting import (
    ABSOLUTE_GATE,
    BLOCK_SECONDS,
    HOP_SECONDS,
    OFFSET,
    RELATIVE_GATE,
    k_weighting,
)

TARGET_LOUDNESS = -23.0
LARGEST_CORRECTION = 20.0  # dB
LARGEST_PEAK = 0.99
ANCHOR_PASS, ANCHOR_STOP = 3500.0, 4000.0
FADE_SECONDS = 0.01


def loudest_start(samples: np.ndarray, length: int, sample_rate: int) -> int:
    """Return the start of the excerpt of `length` samples with the most energy, in steps of 0.1 s."""
    if len(samples) <= length:
        return 0
    hop = max(1, round(HOP_SECONDS * sample_rate))
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    starts = np.arange(0, len(samples) - length + 1, hop)
    return int(starts[np.argmax(energy[starts + length] - energy[starts])])


def fitted(samples: np.ndarray, length: int) -> np.ndarray:
    """Return `samples` cut or padded with zeros to `length`."""
    return np.pad(samples[:length], (0, max(0, length - len(samples)))).astype(np.float32)


def low_anchor(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Low-pass `samples` at 3.5 kHz without a delay, as the low anchor of ITU-R BS.1534."""
    padding = sample_rate // 100
    n = len(samples) + 2 * padding
    frequencies = np.fft.rfftfreq(n, 1 / sample_rate)
    place = np.clip((frequencies - ANCHOR_PASS) / (ANCHOR_STOP - ANCHOR_PASS), 0, 1)
    gain = 0.5 * (1 + np.cos(np.pi * place))
    filtered = np.fft.irfft(np.fft.rfft(np.pad(samples, padding)) * gain, n)
    return filtered[padding : padding + len(samples)].astype(np.float32)


def block_powers(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the K-weighted power of blocks of 0.4 s, every 0.1 s; of all samples if there are fewer."""
    padded = np.pad(samples, (0, sample_rate // 2))  # for the end of the filter's response
    spectrum = np.fft.rfft(padded) * k_weighting(len(padded), sample_rate).numpy()
    weighted = np.fft.irfft(spectrum, len(padded))[: len(samples)]
    energy = np.concatenate([[0.0], np.cumsum(np.square(weighted))])
    block = min(len(samples), round(BLOCK_SECONDS * sample_rate))
    starts = np.arange(0, len(samples) - block + 1, max(1, round(HOP_SECONDS * sample_rate)))
    powers: np.ndarray = np.maximum(energy[starts + block] - energy[starts], 0) / block
    return powers


def active_blocks(powers: np.ndarray) -> np.ndarray:
    """Return a mask of the blocks that count for the loudness, which lie above both gates of ITU-R BS.1770."""
    levels = _level(powers)
    active = levels > ABSOLUTE_GATE
    if not active.any():
        return active
    above: np.ndarray = active & (levels > _level(powers[active].mean()) + RELATIVE_GATE)
    return above


def loudness(samples: np.ndarray, sample_rate: int, active: np.ndarray | None = None) -> float:
    """Compute the integrated loudness in LUFS of mono samples; -inf for silence.

    Args:
        samples: float [n].
        sample_rate: in Hz.
        active: blocks that count, such as the active ones of another signal; None to gate by these samples.
    """
    powers = block_powers(samples, sample_rate)
    active = active_blocks(powers) if active is None else active
    return float(_level(powers[active].mean())) if active.any() else -math.inf


def level_stimuli(
    reference: np.ndarray, others: dict[str, np.ndarray], sample_rate: int, keep_levels: bool
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Bring the stimuli of a clip to one loudness, with fades at both ends.

    Each gets the loudness of the reference, measured where the reference is active, and the reference -23 LUFS. One
    gain for all avoids peaks above 0.99. With `keep_levels` only this gain and the fades are applied.
    """
    gains = dict.fromkeys(others, 1.0)
    gain = 1.0
    if not keep_levels:
        active = active_blocks(block_powers(reference, sample_rate))
        level = loudness(reference, sample_rate, active)
        gain = _factor(TARGET_LOUDNESS - level)
        for name, samples in others.items():
            found = loudness(samples, sample_rate, active)
            change = level - found if found > ABSOLUTE_GATE else 0.0
            gains[name] = gain * _factor(min(LARGEST_CORRECTION, max(-LARGEST_CORRECTION, change)))
    peaks = [gain * _peak(reference), *(gains[name] * _peak(samples) for name, samples in others.items())]
    shared = min(1.0, LARGEST_PEAK / max(*peaks, 1e-9))
    levelled = {name: _faded(samples * (shared * gains[name]), sample_rate) for name, samples in others.items()}
    return _faded(reference * (shared * gain), sample_rate), levelled


def _faded(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    length = min(round(FADE_SECONDS * sample_rate), len(samples) // 2)
    ramp = 0.5 * (1 - np.cos(np.pi * np.arange(length) / max(1, length)))
    faded = samples.astype(np.float32)
    faded[:length] *= ramp
    faded[len(faded) - length :] *= ramp[::-1]
    return faded


def _peak(samples: np.ndarray) -> float:
    return float(np.abs(samples).max(initial=0.0))


def _factor(decibels: float) -> float:
    return float(10 ** (decibels / 20))


def _level(power: np.ndarray | float) -> np.ndarray:
    return np.asarray(OFFSET + 10 * np.log10(np.maximum(power, 1e-30)))
