"""Output and base class of all discriminators."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class DiscriminatorOutput:
    """Output of one discriminator.

    Attributes:
        logits: [B, ...], high for real waveforms.
        features: feature maps [B, ...] of its layers, for feature matching.
    """

    logits: Tensor
    features: list[Tensor]

    def split(self, size: int) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
        """Split the batch into the first `size` waveforms and the rest."""
        logits = self.logits.tensor_split([size])
        features = [feature.tensor_split([size]) for feature in self.features]
        first, rest = (DiscriminatorOutput(logits[n], [halves[n] for halves in features]) for n in (0, 1))
        return first, rest


class MultiDiscriminator(nn.Module):
    """Several discriminators of one kind that see the same waveform at different periods, scales or resolutions."""

    discriminators: nn.ModuleList

    def forward(self, waveform: Tensor) -> list[DiscriminatorOutput]:
        """Outputs of all discriminators for `waveform` [B, T]."""
        return [discriminator(waveform) for discriminator in self.discriminators]


def feature_maps(convs: Iterable[nn.Module], x: Tensor, slope: float) -> list[Tensor]:
    """Outputs of all layers, applied to `x` one after the other, each followed by a leaky ReLU."""
    maps: list[Tensor] = []
    for conv in convs:
        if x.is_cuda and x.dim() == 4:
            # cuDNN computes convolutions in two dimensions so, and would convert every input and gradient.
            x = x.contiguous(memory_format=torch.channels_last)
        # In place: no convolution needs its own output in the backward pass.
        x = F.leaky_relu(conv(x), slope, inplace=True)
        maps.append(x)
    return maps
