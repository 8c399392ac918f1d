"""The adversary: discriminators, their optimizer and their losses as one object."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .config import DiscriminatorsConfig, OptimizerConfig
from .discriminators import (
    Judgement,
    MultiPeriodDiscriminator,
    MultiScaleDiscriminator,
    MultiScaleSTFTDiscriminator,
)
from .losses import adversarial_loss, discriminator_loss, feature_matching_loss
from .optimizer import build_optimizer, step_optimizer


@dataclass
class GeneratorLosses:
    """What the adversary asks of the generator, unweighted."""

    adversarial: Tensor
    feature_matching: Tensor


class Adversary(nn.Module):
    """Learns to tell generated from real waveforms, and says how the generator can do better."""

    def __init__(self, config: DiscriminatorsConfig, optimizer: OptimizerConfig) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            [
                MultiPeriodDiscriminator(config.period),
                MultiScaleDiscriminator(config.scale),
                MultiScaleSTFTDiscriminator(config.stft),
            ]
        )
        self.optimizer_config = optimizer
        self.optimizer = build_optimizer(self.parameters(), optimizer)

    def forward(self, waveform: Tensor) -> list[Judgement]:
        """All judgements of `waveform` [B, T]."""
        return [judgement for discriminator in self.discriminators for judgement in discriminator(waveform)]

    def train_step(self, real: Tensor, generated: Tensor, step: int) -> Tensor:
        """One optimizer step on waveforms [B, T]; returns the loss before it."""
        loss = discriminator_loss(self(real), self(generated.detach()))
        step_optimizer(self.optimizer, loss, self.optimizer_config, step)
        return loss.detach()

    def generator_losses(self, real: Tensor, generated: Tensor) -> GeneratorLosses:
        """Losses with gradients to `generated` [B, T] only."""
        self.requires_grad_(False)
        try:
            with torch.no_grad():
                real_judgements = self(real)
            judgements = self(generated)
        finally:
            self.requires_grad_(True)
        return GeneratorLosses(adversarial_loss(judgements), feature_matching_loss(real_judgements, judgements))
