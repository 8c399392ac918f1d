"""Multi-period discriminator (Kong et al. 2020)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codectok.train.recipe import PeriodDiscriminatorConfig

from .base import DiscriminatorOutput, MultiDiscriminator, feature_maps

SLOPE = 0.1


class PeriodDiscriminator(nn.Module):
    """Convolutions along every `period`-th sample."""

    def __init__(self, period: int, config: PeriodDiscriminatorConfig) -> None:
        super().__init__()
        self.period = period
        padding = (config.kernel_size - 1) // 2
        strides = [config.stride] * (len(config.channels) - 1) + [1]
        in_channels = 1
        self.convs = nn.ModuleList()
        for channels, stride in zip(config.channels, strides, strict=True):
            conv = nn.Conv2d(in_channels, channels, (config.kernel_size, 1), (stride, 1), (padding, 0))
            self.convs.append(weight_norm(conv))
            in_channels = channels
        self.conv_post = weight_norm(nn.Conv2d(in_channels, 1, (3, 1), 1, (1, 0)))

    def forward(self, waveform: Tensor) -> DiscriminatorOutput:
        """Discriminate `waveform` [B, T], which is extended by reflection to a multiple of the period."""
        missing = -waveform.shape[1] % self.period
        x = F.pad(waveform.unsqueeze(1), (0, missing), mode="reflect")
        x = x.view(*x.shape[:2], -1, self.period)
        features = feature_maps(self.convs, x, SLOPE)
        logits = self.conv_post(features[-1])
        return DiscriminatorOutput(logits.flatten(1), [*features, logits])


class MultiPeriodDiscriminator(MultiDiscriminator):
    """One discriminator per period."""

    def __init__(self, config: PeriodDiscriminatorConfig) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(PeriodDiscriminator(period, config) for period in config.periods)
