"""Losses of the generator and of the discriminators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codectok.audio.mel import LogMel
from codectok.config import MelConfig
from codectok.train.discriminators import Judgement
from codectok.train.recipe import MelTerm


class MultiScaleMelLoss(nn.Module):
    """Weighted mean absolute differences of log-mels at several resolutions, over the frequencies of `base`."""

    def __init__(self, terms: Sequence[MelTerm], base: MelConfig) -> None:
        super().__init__()
        self.weights = [term.weight for term in terms]
        self.log_mels = nn.ModuleList(LogMel(term.mel_config(base)) for term in terms)

    def forward(self, generated: Tensor, real: Tensor) -> list[Tensor]:
        """The unweighted difference at each resolution, for waveforms [B, T]."""
        return [F.l1_loss(log_mel(generated), log_mel(real)) for log_mel in self.log_mels]

    def total(self, differences: Sequence[Tensor]) -> Tensor:
        """Their weighted sum."""
        return torch.stack([w * d for w, d in zip(self.weights, differences, strict=True)]).sum()


def discriminator_loss(real: Sequence[Judgement], generated: Sequence[Judgement]) -> Tensor:
    """Least squares: real towards 1, generated towards 0, summed over discriminators (Mao et al. 2017)."""
    losses = [
        (1 - r.logits.float()).square().mean() + g.logits.float().square().mean()
        for r, g in zip(real, generated, strict=True)
    ]
    return torch.stack(losses).sum()


def adversarial_loss(generated: Sequence[Judgement]) -> Tensor:
    """Least squares of the generator: its output towards 1, summed over discriminators."""
    return torch.stack([(1 - g.logits.float()).square().mean() for g in generated]).sum()


def feature_matching_loss(real: Sequence[Judgement], generated: Sequence[Judgement]) -> Tensor:
    """Mean absolute difference of every feature map, summed; the real ones are targets (Larsen et al. 2016)."""
    losses = [
        (r.detach().float() - g.float()).abs().mean()
        for real_one, generated_one in zip(real, generated, strict=True)
        for r, g in zip(real_one.features, generated_one.features, strict=True)
    ]
    return torch.stack(losses).sum()
