"""Losses of the generator and of the discriminators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codectok.audio.analysis.mel import LogMel
from codectok.config import MelConfig
from codectok.train.discriminators import DiscriminatorOutput
from codectok.train.recipe import MelTerm


class MultiScaleMelLoss(nn.Module):
    """Mean absolute difference of log-mels at several resolutions.

    Args:
        terms: resolutions and their weights.
        base: sample rate and frequency range of all spectrograms.
    """

    def __init__(self, terms: Sequence[MelTerm], base: MelConfig) -> None:
        super().__init__()
        self.weights = [term.weight for term in terms]
        self.log_mels = nn.ModuleList(LogMel(term.mel_config(base)) for term in terms)

    def forward(self, generated: Tensor, real: Tensor) -> list[Tensor]:
        """Unweighted loss at each resolution, for waveforms [B, T]."""
        return [F.l1_loss(log_mel(generated), log_mel(real)) for log_mel in self.log_mels]

    def total(self, differences: Sequence[Tensor]) -> Tensor:
        """Weighted sum of the losses returned by `forward`."""
        return torch.stack([w * d for w, d in zip(self.weights, differences, strict=True)]).sum()


def discriminator_loss(real: Sequence[DiscriminatorOutput], generated: Sequence[DiscriminatorOutput]) -> Tensor:
    """Least-squares loss with targets 1 for real and 0 for generated, summed over discriminators (Mao et al. 2017)."""
    losses = [
        (1 - r.logits.float()).square().mean() + g.logits.float().square().mean()
        for r, g in zip(real, generated, strict=True)
    ]
    return torch.stack(losses).sum()


def adversarial_loss(generated: Sequence[DiscriminatorOutput]) -> Tensor:
    """Least-squares loss of the generator with target 1, summed over discriminators (Mao et al. 2017)."""
    return torch.stack([(1 - g.logits.float()).square().mean() for g in generated]).sum()


def feature_matching_loss(real: Sequence[DiscriminatorOutput], generated: Sequence[DiscriminatorOutput]) -> Tensor:
    """Mean absolute difference per feature map, summed; real features are constant targets (Larsen et al. 2016)."""
    losses = [
        (r.detach().float() - g.float()).abs().mean()
        for real_output, output in zip(real, generated, strict=True)
        for r, g in zip(real_output.features, output.features, strict=True)
    ]
    return torch.stack(losses).sum()
