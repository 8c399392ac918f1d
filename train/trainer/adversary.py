"""The adversary: discriminators, their optimizer and their losses as one object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from codectok.train.discriminators import (
    Judgement,
    MultiPeriodDiscriminator,
    MultiScaleDiscriminator,
    MultiScaleSTFTDiscriminator,
)
from codectok.train.distributed import Ranks
from codectok.train.recipe import DiscriminatorsConfig, OptimizerConfig, TrainingPrecision

from .losses import adversarial_loss, discriminator_loss, feature_matching_loss
from .optimizer import build_optimizer, step_optimizer

Pair = tuple[Tensor, Tensor]
"""A real and a generated waveform, [B, T] each."""


@dataclass
class GeneratorLosses:
    """What the adversary asks of the generator, unweighted."""

    adversarial: Tensor
    feature_matching: Tensor


class Adversary(nn.Module):
    """Learns to tell generated from real waveforms, and says how the generator can do better.

    Discriminators work in `precision`; weights are normalized, spectra taken and losses computed in float32.
    """

    def __init__(
        self,
        config: DiscriminatorsConfig,
        optimizer: OptimizerConfig,
        precision: TrainingPrecision = "float32",
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            [
                MultiPeriodDiscriminator(config.period),
                MultiScaleDiscriminator(config.scale),
                MultiScaleSTFTDiscriminator(config.stft),
            ]
        )
        self.precision = precision
        self.optimizer_config = optimizer
        self.optimizer = build_optimizer(self.parameters(), optimizer)
        self._ranks = ranks or Ranks()
        # In a tuple: as an attribute it would become a part of itself.
        self._synchronized: tuple[Callable[[Tensor], list[Judgement]], ...] = ()

    def forward(self, waveform: Tensor) -> list[Judgement]:
        """All judgements of `waveform` [B, T]."""
        with parametrize.cached():
            # Computed here and kept, outside of autocast: norms are not for half precision.
            _ = [module.weight for module in self.modules() if parametrize.is_parametrized(module, "weight")]
            with torch.autocast(waveform.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                return [judgement for discriminator in self.discriminators for judgement in discriminator(waveform)]

    def train_step(self, pairs: Sequence[Pair], step: int) -> Tensor:
        """One optimizer step on the mean loss of `pairs`, which are equally many; returns that loss.

        However many there are, spectral norms take one power iteration.
        """
        # Averages gradients over the ranks; made late, when the parameters are on their device.
        self._synchronized = self._synchronized or (self._ranks.synchronized(self),)
        (judge,) = self._synchronized
        losses = []
        for number, (real, generated) in enumerate(pairs):
            self.train(number == 0)
            with self._ranks.accumulating(judge, last=number == len(pairs) - 1):
                judgements = judge(torch.cat([real, generated.detach()]))
                parts = [judgement.split(len(real)) for judgement in judgements]
                loss = discriminator_loss([real for real, _ in parts], [generated for _, generated in parts])
                (loss / len(pairs)).backward()
            losses.append(loss.detach())
        self.eval()
        step_optimizer(self.optimizer, self.optimizer_config, step)
        return torch.stack(losses).mean()

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
