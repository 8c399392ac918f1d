"""The filters and gates of ITU-R BS.1770-4, by which loudness is measured."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK_SECONDS, HOP_SECONDS = 0.4, 0.1
ABSOLUTE_GATE = -70.0  # LUFS
RELATIVE_GATE = -10.0  # relative to the mean of the blocks above the absolute gate
OFFSET = -0.691  # makes a 997 Hz sine at full scale -3.01 LUFS

# The standard lists filter coefficients for 48 kHz only; these analogue parameters reproduce them at any rate.
SHELF_FREQUENCY, SHELF_GAIN, SHELF_Q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
SHELF_EXPONENT = 0.4996667741545416
HIGH_PASS_FREQUENCY, HIGH_PASS_Q = 38.13547087602444, 0.5003270373238773


def k_weighting(n_samples: int, sample_rate: int) -> Tensor:
    """Return the response of both filters, complex128 [n_samples // 2 + 1], at the frequencies of a real transform."""
    delay = torch.exp(-1j * torch.arange(n_samples // 2 + 1, dtype=torch.float64) * (2 * math.pi / n_samples))
    k = math.tan(math.pi * SHELF_FREQUENCY / sample_rate)
    high = 10 ** (SHELF_GAIN / 20)
    band = high**SHELF_EXPONENT
    shelf = _response(
        delay,
        (high + band * k / SHELF_Q + k * k, 2 * (k * k - high), high - band * k / SHELF_Q + k * k),
        (1 + k / SHELF_Q + k * k, 2 * (k * k - 1), 1 - k / SHELF_Q + k * k),
    )
    k = math.tan(math.pi * HIGH_PASS_FREQUENCY / sample_rate)
    a = (1 + k / HIGH_PASS_Q + k * k, 2 * (k * k - 1), 1 - k / HIGH_PASS_Q + k * k)
    # After normalising the denominator, the numerator of the standard is 1, -2, 1.
    high_pass = _response(delay, (a[0], -2 * a[0], a[0]), a)
    return shelf * high_pass


def _response(delay: Tensor, b: tuple[float, float, float], a: tuple[float, float, float]) -> Tensor:
    """Frequency response of a biquad with numerator `b` and denominator `a`; `delay` is the delay of one sample."""
    return (b[0] + b[1] * delay + b[2] * delay * delay) / (a[0] + a[1] * delay + a[2] * delay * delay)
