"""Decoder with an inverse Fourier transform (Vocos, Siuzdak 2023): features to waveform.

ConvNeXt blocks work at the frame rate of the mel, and one transform makes the samples of each frame, which
costs much less than upsampling step by step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codectok.config import InverseSTFTDecoderConfig
from codectok.device import no_autocast

from .convnext import LAYER_NORM_EPSILON, ConvNeXtBlock, WindowedLinear, truncated_normal_linear

MAX_MAGNITUDE = 100.0


class InverseSTFTDecoder(nn.Module):
    """ConvNeXt blocks, then magnitudes and phases of a spectrum for each frame, and its inverse transform.

    Args:
        config: sizes.
        dim: channels of the features.
        hop_length: samples from one frame to the next.
    """

    def __init__(self, config: InverseSTFTDecoderConfig, dim: int, hop_length: int) -> None:
        super().__init__()
        self._n_fft, self._hop_length = config.n_fft, hop_length
        self.stem = WindowedLinear(dim, config.dim, config.kernel_size)
        self.stem_norm = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPSILON)
        self.blocks = nn.Sequential(
            *[ConvNeXtBlock(config.dim, config.kernel_size, scale=1 / config.depth) for _ in range(config.depth)]
        )
        self.norm = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPSILON)
        self.head = truncated_normal_linear(config.dim, config.n_fft + 2)

    def forward(self, features: Tensor) -> Tensor:
        """Map `features` [B, T, C] to a waveform [B, T * hop_length] in [-1, 1]."""
        x = self.norm(self.blocks(self.stem_norm(self.stem(features))))
        with no_autocast(x):
            x = x if x.dtype == torch.float64 else x.float()
            log_magnitude, phase = F.linear(x, self.head.weight.to(x.dtype), self.head.bias.to(x.dtype)).chunk(2, -1)
            waveform = self._inverse_stft(torch.polar(log_magnitude.exp().clamp(max=MAX_MAGNITUDE), phase))
        # Limited in use only: a sample at the limit has no gradient.
        return waveform if self.training else waveform.clamp(-1.0, 1.0)

    def prepare_for_training(self) -> None:
        """Do nothing: this decoder is trained as it is."""

    def _inverse_stft(self, spectrum: Tensor) -> Tensor:
        """Add the overlapping frames of `spectrum` [B, T, n_fft / 2 + 1], and cut both ends to T * hop_length samples.

        Rows of shifted blocks are added in a fixed order, so that results do not change from run to run on a GPU.
        """
        # Not a buffer: modules are built without memory, and get the stored tensors only.
        window = torch.hann_window(self._n_fft, dtype=spectrum.real.dtype, device=spectrum.device)
        added = self._overlap_add(torch.fft.irfft(spectrum, self._n_fft) * window)
        weight = self._overlap_add((window * window).expand(1, spectrum.shape[1], -1))
        side = (self._n_fft - self._hop_length) // 2
        return (added / weight.clamp(min=1e-11))[:, side:-side]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """Add `frames` [B, T, n_fft], each `hop_length` behind the one before, to [B, (T - 1) * hop_length + n_fft]."""
        n_blocks = self._n_fft // self._hop_length
        blocks = frames.reshape(*frames.shape[:2], n_blocks, self._hop_length)
        total = sum(F.pad(blocks[:, :, block], (0, 0, block, n_blocks - 1 - block)) for block in range(n_blocks))
        assert isinstance(total, Tensor)
        return total.flatten(1)


def receptive_field(config: InverseSTFTDecoderConfig, hop_length: int) -> int:
    """Number of mel frames on each side of a frame that its samples depend on."""
    return (config.depth + 1) * (config.kernel_size // 2) + -(-(config.n_fft - hop_length) // (2 * hop_length))
