"""Synthetic audio."""

from __future__ import annotations

import numpy as np


def tone(seconds: float, sample_rate: int, frequency: float = 300.0, seed: int = 0) -> np.ndarray:
    """Return a noisy sine, float32 [n], that fades in and out once a second."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    noise = np.random.default_rng(seed).normal(0, 0.02, len(t))
    wave = np.abs(np.sin(np.pi * t)) * (0.3 * np.sin(2 * np.pi * frequency * t) + noise)
    return wave.astype(np.float32)


def voice(seconds: float, sample_rate: int = 16_000, pitch: float = 120.0, seed: int = 0) -> np.ndarray:
    """Return an artificial voice, float32 [n]: syllables of vowels with a moving pitch, hiss, and short pauses."""
    generator = np.random.default_rng(seed)
    n = round(seconds * sample_rate)
    t = np.arange(n) / sample_rate
    phase = np.cumsum(pitch * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * t))) / sample_rate
    syllables = t * 4
    wave = np.zeros(n)
    # Formants in Hz of some vowels; each syllable has one.
    vowels = generator.permutation([(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480)])
    of_sample = vowels[syllables.astype(int) % len(vowels)]
    for harmonic in range(1, int(0.45 * sample_rate / pitch)):
        frequency = harmonic * pitch
        gain = np.exp(-(((frequency - of_sample) / 150.0) ** 2)).sum(1) + 0.05
        wave += gain / harmonic**0.5 * np.sin(2 * np.pi * harmonic * phase)
    envelope = np.clip(np.sin(np.pi * (syllables % 1)), 0, 1) * (syllables % 7 < 6)
    hiss = generator.normal(0, 0.3, n) * (syllables % 1 > 0.85)
    wave = (wave + hiss) * envelope + generator.normal(0, 1e-3, n)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)
