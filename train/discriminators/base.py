"""What every discriminator gives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Judgement:
    """One discriminator's verdict: `logits` of any shape, and its feature maps for feature matching."""

    logits: Tensor
    features: list[Tensor]

    def split(self, size: int) -> tuple[Judgement, Judgement]:
        """That of the first `size` waveforms and that of the rest."""
        first, rest = self.logits.tensor_split([size]), [feature.tensor_split([size]) for feature in self.features]
        return Judgement(first[0], [part[0] for part in rest]), Judgement(first[1], [part[1] for part in rest])


class MultiDiscriminator(nn.Module):
    """Several discriminators of one kind that look at the same waveform in different ways."""

    discriminators: nn.ModuleList

    def forward(self, waveform: Tensor) -> list[Judgement]:
        """One judgement from each, of `waveform` [B, T]."""
        return [discriminator(waveform) for discriminator in self.discriminators]


def feature_maps(convs: Iterable[nn.Module], x: Tensor, slope: float) -> list[Tensor]:
    """What each layer makes of the one before it, the first of `x`, behind leaky rectifiers."""
    maps: list[Tensor] = []
    for conv in convs:
        # In place: no convolution needs what it has given in its backward pass.
        x = F.leaky_relu(conv(x), slope, inplace=True)
        maps.append(x)
    return maps
