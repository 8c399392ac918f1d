"""Synthetic audio."""

from __future__ import annotations

import numpy as np


def tone(seconds: float, sample_rate: int, frequency: float = 300.0, seed: int = 0) -> np.ndarray:
    """Return a noisy sine, float32 [n], that fades in and out once a second."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    noise = np.random.default_rng(seed).normal(0, 0.02, len(t))
    wave = np.abs(np.sin(np.pi * t)) * (0.3 * np.sin(2 * np.pi * frequency * t) + noise)
    return wave.astype(np.float32)
