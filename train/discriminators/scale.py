"""Multi-scale discriminator (Kumar et al. 2019, in HiFi-GAN's form)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from codectok.train.recipe import ScaleDiscriminatorConfig

from .base import DiscriminatorOutput, MultiDiscriminator, feature_maps

SLOPE = 0.1


class ScaleDiscriminator(nn.Module):
    """Grouped, strided convolutions over the waveform."""

    def __init__(self, config: ScaleDiscriminatorConfig, norm: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        in_channels = 1
        self.convs = nn.ModuleList()
        for layer in config.layers:
            padding = (layer.kernel_size - 1) // 2
            conv = nn.Conv1d(in_channels, layer.channels, layer.kernel_size, layer.stride, padding, groups=layer.groups)
            self.convs.append(norm(conv))
            in_channels = layer.channels
        self.conv_post = norm(nn.Conv1d(in_channels, 1, 3, padding=1))

    def forward(self, waveform: Tensor) -> DiscriminatorOutput:
        """Discriminate `waveform` [B, 1, T]."""
        features = feature_maps(self.convs, waveform, SLOPE)
        logits = self.conv_post(features[-1])
        return DiscriminatorOutput(logits.flatten(1), [*features, logits])


class MultiScaleDiscriminator(MultiDiscriminator):
    """One discriminator per scale, each of half the rate; the first one has spectral norm, the others weight norm."""

    def __init__(self, config: ScaleDiscriminatorConfig) -> None:
        super().__init__()
        norms = [spectral_norm] + [weight_norm] * (config.n_scales - 1)
        self.discriminators = nn.ModuleList(ScaleDiscriminator(config, norm) for norm in norms)

    def forward(self, waveform: Tensor) -> list[DiscriminatorOutput]:
        """Outputs of all scales for `waveform` [B, T]."""
        x = waveform.unsqueeze(1)
        outputs = []
        for scale, discriminator in enumerate(self.discriminators):
            if scale:
                x = F.avg_pool1d(x, kernel_size=4, stride=2, padding=2)
            outputs.append(discriminator(x))
        return outputs
