"""HiFi-GAN decoder (Kong et al. 2020): features to waveform."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codectok.config import DecoderConfig
from codectok.device import no_autocast


class ResidualBlock(nn.Module):
    """Residual branches of a dilated and a plain convolution each."""

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(_same_conv(channels, channels, kernel_size, d) for d in dilations)
        self.plain = nn.ModuleList(_same_conv(channels, channels, kernel_size) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, T] to the same shape."""
        for dilated, plain in zip(self.dilated, self.plain, strict=True):
            x = x + plain(F.silu(dilated(F.silu(x))))
        return x


class HiFiGANDecoder(nn.Module):
    """Transposed convolutions, each followed by the mean of parallel residual blocks."""

    def __init__(self, config: DecoderConfig, dim: int) -> None:
        super().__init__()
        channels = config.initial_channels
        self.pre = _same_conv(dim, channels, config.pre_kernel_size)
        self.upsamples = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for rate, kernel_size in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            padding = (kernel_size - rate) // 2
            self.upsamples.append(nn.ConvTranspose1d(channels, channels // 2, kernel_size, rate, padding))
            channels //= 2
            parallel = zip(config.resblock_kernel_sizes, config.resblock_dilations, strict=True)
            self.blocks.append(nn.ModuleList(ResidualBlock(channels, size, dilations) for size, dilations in parallel))
        self.post = _same_conv(channels, 1, config.post_kernel_size)

    def forward(self, features: Tensor) -> Tensor:
        """Map `features` [B, T, C] to a waveform [B, T * product of the upsampling rates] in [-1, 1]."""
        x = self.pre(features.transpose(1, 2))
        for upsample, blocks in zip(self.upsamples, self.blocks, strict=True):
            x = upsample(F.silu(x))
            x = torch.stack([block(x) for block in blocks.children()]).mean(0)
        # bfloat16 has 8 bits: rounding noise 48 dB below the signal would show in the log-mel of quiet passages.
        with no_autocast(x):
            x = x if x.dtype == torch.float64 else x.float()
            return torch.tanh(self.post(F.silu(x))).squeeze(1)

    def prepare_for_training(self) -> None:
        """Train magnitude and direction of every kernel separately (Salimans and Kingma 2016)."""
        for module in list(self.modules()):
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                weight_norm(module)


def receptive_field(config: DecoderConfig) -> int:
    """Number of mel frames on each side of a frame that its samples depend on."""
    blocks = zip(config.resblock_kernel_sizes, config.resblock_dilations, strict=True)
    block_side = max(sum(size // 2 * (dilation + 1) for dilation in dilations) for size, dilations in blocks)
    side = config.post_kernel_size // 2
    for rate, kernel_size in zip(config.upsample_rates[::-1], config.upsample_kernel_sizes[::-1], strict=True):
        side += block_side
        padding = (kernel_size - rate) // 2
        side = max(side + kernel_size - 1 - padding, side + rate - 1 + padding) // rate
    return side + config.pre_kernel_size // 2


def _same_conv(in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1) -> nn.Conv1d:
    padding = dilation * (kernel_size - 1) // 2
    return nn.Conv1d(in_channels, out_channels, kernel_size, dilation=dilation, padding=padding)
