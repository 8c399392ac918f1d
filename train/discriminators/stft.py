"""Multi-scale STFT discriminator (Defossez et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codectok.train.recipe import STFTDiscriminatorConfig

from .base import DiscriminatorOutput, MultiDiscriminator, feature_maps

SLOPE = 0.2
DILATIONS = (1, 2, 4)


class STFTDiscriminator(nn.Module):
    """Convolutions over real and imaginary parts of one spectrogram, [B, 2, frames, frequencies].

    Buffers (not saved): `window` [n_fft], periodic Hann.
    """

    window: Tensor

    def __init__(self, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        # The first layer has no weight norm, as in the reference.
        self.convs = nn.ModuleList([nn.Conv2d(2, channels, (3, 9), padding=(1, 4))])
        for dilation in DILATIONS:
            conv = nn.Conv2d(channels, channels, (3, 9), (1, 2), (dilation, 4), (dilation, 1))
            self.convs.append(weight_norm(conv))
        self.convs.append(weight_norm(nn.Conv2d(channels, channels, 3, padding=1)))
        self.conv_post = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, waveform: Tensor) -> DiscriminatorOutput:
        """Discriminate `waveform` [B, T]."""
        spectrum = torch.stft(
            waveform.float(), self.n_fft, self.n_fft // 4, window=self.window, center=False, return_complex=True
        )
        spectrum = spectrum / self.window.square().sum().sqrt()
        x = torch.stack([spectrum.real, spectrum.imag], dim=1).transpose(2, 3)
        features = feature_maps(self.convs, x, SLOPE)
        return DiscriminatorOutput(self.conv_post(features[-1]), features)


class MultiScaleSTFTDiscriminator(MultiDiscriminator):
    """One discriminator per window length."""

    def __init__(self, config: STFTDiscriminatorConfig) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(STFTDiscriminator(n_fft, config.channels) for n_fft in config.n_ffts)
