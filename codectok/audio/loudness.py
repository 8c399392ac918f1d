"""Loudness of a clip."""

from __future__ import annotations

import math

import numpy as np
import torch
from torchaudio.functional import loudness

GATING_BLOCK_SECONDS = 0.4


def integrated_loudness(samples: np.ndarray, sample_rate: int) -> float | None:
    """Integrated loudness in LUFS (ITU-R BS.1770-4) of mono `samples` [n], to a tenth.

    None for digital silence and for clips shorter than a gating block of 0.4 s.
    """
    if len(samples) < GATING_BLOCK_SECONDS * sample_rate:
        return None
    value = float(loudness(torch.from_numpy(samples).unsqueeze(0), sample_rate))
    return round(value, 1) if math.isfinite(value) else None
