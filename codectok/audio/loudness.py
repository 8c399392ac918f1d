"""Loudness of a clip, as ITU-R BS.1770-4 defines it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torchaudio.functional import lfilter

BLOCK_SECONDS = 0.4
HOP_SECONDS = 0.1
ABSOLUTE_GATE = -70.0  # LUFS
RELATIVE_GATE = -10.0  # below the mean of what passes the absolute gate
OFFSET = -0.691  # makes a 997 Hz sine at full scale -3.01 LUFS

# The standard gives filter coefficients for 48 kHz only; these analogue parameters reproduce them at any rate.
SHELF_FREQUENCY, SHELF_GAIN, SHELF_Q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
SHELF_EXPONENT = 0.4996667741545416
HIGH_PASS_FREQUENCY, HIGH_PASS_Q = 38.13547087602444, 0.5003270373238773


def integrated_loudness(samples: np.ndarray, sample_rate: int) -> float | None:
    """Integrated loudness in LUFS of mono `samples` [n], to a tenth.

    None for clips without a block of 0.4 s above -70 LUFS.
    """
    block, hop = round(BLOCK_SECONDS * sample_rate), round(HOP_SECONDS * sample_rate)
    if len(samples) < block:
        return None
    weighted = _k_weighted(torch.from_numpy(samples).double(), sample_rate)
    powers = weighted.unfold(0, block, hop).square().mean(1)
    audible = powers[_loudness(powers) > ABSOLUTE_GATE]
    if len(audible) == 0:
        return None
    gated = audible[_loudness(audible) > _loudness(audible.mean()) + RELATIVE_GATE]
    return round(float(_loudness(gated.mean())), 1)


def _loudness(power: Tensor) -> Tensor:
    return OFFSET + 10 * power.log10()


def _k_weighted(samples: Tensor, sample_rate: int) -> Tensor:
    """The two filters of the standard: a high shelf for the head, a high pass for low frequencies."""
    k = math.tan(math.pi * SHELF_FREQUENCY / sample_rate)
    high = 10 ** (SHELF_GAIN / 20)
    band = high**SHELF_EXPONENT
    a = [1 + k / SHELF_Q + k * k, 2 * (k * k - 1), 1 - k / SHELF_Q + k * k]
    b = [high + band * k / SHELF_Q + k * k, 2 * (k * k - high), high - band * k / SHELF_Q + k * k]
    shelved = _filter(samples, a, b)
    k = math.tan(math.pi * HIGH_PASS_FREQUENCY / sample_rate)
    a = [1 + k / HIGH_PASS_Q + k * k, 2 * (k * k - 1), 1 - k / HIGH_PASS_Q + k * k]
    scale = a[0]  # the standard's numerator is 1, -2, 1 after the denominator is normalised
    return _filter(shelved, a, [scale, -2 * scale, scale])


def _filter(samples: Tensor, a: list[float], b: list[float]) -> Tensor:
    return lfilter(samples, samples.new_tensor(a), samples.new_tensor(b), clamp=False)
