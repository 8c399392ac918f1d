"""What every discriminator gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class Judgement:
    """One discriminator's verdict: `logits` of any shape, and its feature maps for feature matching."""

    logits: Tensor
    features: list[Tensor]


class MultiDiscriminator(nn.Module, ABC):
    """Several discriminators of one kind that look at the same waveform in different ways."""

    @abstractmethod
    def forward(self, waveform: Tensor) -> list[Judgement]:
        """One judgement from each, of `waveform` [B, T]."""
