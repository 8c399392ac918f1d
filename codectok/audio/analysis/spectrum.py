"""Loudness and bandwidth of a clip, both from its spectrum."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from .k_weighting import ABSOLUTE_GATE, BLOCK_SECONDS, HOP_SECONDS, OFFSET, RELATIVE_GATE, k_weighting

BLOCK_HOPS = round(BLOCK_SECONDS / HOP_SECONDS)
# Squares of the sums of larger samples overflow float32.
LARGE = 1e12

# Frequencies this far below the loudest one count as noise of a lossy codec.
BANDWIDTH_FLOOR_DB = -80.0
BANDWIDTH_STEP = 100
BANDWIDTH_EVERY_HOPS = 4


class Spectrum:
    """Spectrum of each 0.1 s of mono `samples` float32 [n]."""

    def __init__(self, samples: np.ndarray, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        hop = round(HOP_SECONDS * sample_rate)
        if not -LARGE < samples.min() <= samples.max() < LARGE:
            samples = samples.astype(np.float64)
        self._n_hops = len(samples) // hop
        if self._n_hops == 0:
            samples = np.concatenate([samples, np.zeros(hop - len(samples), samples.dtype)])
        n_hops = max(1, self._n_hops)
        self._hops = torch.from_numpy(samples[: n_hops * hop]).view(n_hops, hop)

    def integrated_loudness(self) -> float | None:
        """Compute the integrated loudness (ITU-R BS.1770-4) in LUFS to 0.1; None if no block is above -70 LUFS.

        The filters of the standard are applied as factors on the spectrum. This takes a tenth of the time of filtering
        samples; for 99 of 100 recordings the result differs by at most 0.15 LUFS.
        """
        loudness = self.unrounded_loudness()
        return None if loudness is None else round(loudness, 1)

    def unrounded_loudness(self) -> float | None:
        """Compute the integrated loudness in LUFS without rounding, for differences; None if no block is above -70."""
        if self._n_hops < BLOCK_HOPS:
            return None
        spectrum = torch.view_as_real(torch.fft.rfft(self._hops)).flatten(1)
        powers = (spectrum.square() @ _k_weights(self.sample_rate).to(spectrum.dtype)).double().numpy()
        blocks = np.convolve(powers, np.full(BLOCK_HOPS, 1 / BLOCK_HOPS), mode="valid")
        audible = blocks[blocks > _power(ABSOLUTE_GATE)]
        if len(audible) == 0:
            return None
        gated = audible[audible > audible.mean() * 10 ** (RELATIVE_GATE / 10)]
        return OFFSET + 10 * math.log10(gated.mean())

    def bandwidth(self) -> int:
        """Return the highest frequency in Hz that is ever within 80 dB of the loudest one, to 100 Hz; 0 for silence."""
        some = self._hops[::BANDWIDTH_EVERY_HOPS]
        # Without a window, strong frequencies leak into all others.
        spectrum = torch.fft.rfft(some * _blackman(some.shape[1]))
        power = torch.view_as_real(spectrum).square().amax(0).sum(1).numpy()
        if not power.any():
            return 0
        highest = int(np.flatnonzero(power > power.max() * 10 ** (BANDWIDTH_FLOOR_DB / 10))[-1])
        return round(highest / HOP_SECONDS / BANDWIDTH_STEP) * BANDWIDTH_STEP


@functools.cache
def _blackman(size: int) -> Tensor:
    return torch.blackman_window(size, periodic=True, dtype=torch.float64).float()


def _power(loudness: float) -> float:
    return 10 ** ((loudness - OFFSET) / 10)


@functools.cache
def _k_weights(sample_rate: int) -> Tensor:
    """Weights that turn the squared spectrum of 0.1 s into its mean square after the two filters of the standard."""
    hop = round(HOP_SECONDS * sample_rate)
    weights = k_weighting(hop, sample_rate).abs().square() / hop**2
    weights[1 : (hop + 1) // 2] *= 2  # negative frequencies
    return weights.float().repeat_interleave(2)  # for the real and the imaginary part
