"""The adversary: discriminators with their optimizer and losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from codectok.train.discriminators import (
    DiscriminatorOutput,
    MultiPeriodDiscriminator,
    MultiScaleDiscriminator,
    MultiScaleSTFTDiscriminator,
)
from codectok.train.distributed import Ranks
from codectok.train.recipe import DiscriminatorsConfig, OptimizerConfig, TrainingPrecision

from .losses import adversarial_loss, discriminator_loss, feature_matching_loss
from .optimizer import ScheduledOptimizer

Pair = tuple[Tensor, Tensor]
"""A real and a generated waveform, [B, T] each."""


@dataclass
class GeneratorLosses:
    """Unweighted losses of the generator against the adversary."""

    adversarial: Tensor
    feature_matching: Tensor


class Adversary(nn.Module):
    """Learns to tell real from generated waveforms, and computes the generator's adversarial losses.

    Discriminators run in `precision`; weight normalization, spectra and losses are in float32.

    Args:
        config: of the discriminators.
        optimizer: of the discriminators.
        precision: of the discriminators.
        ranks: over which gradients are averaged.
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
        self._ranks = ranks or Ranks()
        self.optimizer = ScheduledOptimizer(self, optimizer, self._ranks)
        # Wrapped in a tuple so that nn.Module does not register it as a submodule.
        self._synchronized: tuple[Callable[[Tensor], list[DiscriminatorOutput]], ...] = ()

    def forward(self, waveform: Tensor) -> list[DiscriminatorOutput]:
        """Outputs of all discriminators for `waveform` [B, T]."""
        with parametrize.cached():
            # Computed and cached outside of autocast: normalization needs float32.
            _ = [module.weight for module in self.modules() if parametrize.is_parametrized(module, "weight")]
            with torch.autocast(waveform.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                return [output for discriminator in self.discriminators for output in discriminator(waveform)]

    def train_step(self, pairs: Sequence[Pair], step: int) -> Tensor:
        """Take one optimizer step on the mean loss of microbatches of equal size, and return that loss.

        Spectral norms take one power iteration per step, for any number of microbatches.

        Args:
            pairs: one per microbatch.
            step: of the discriminators' optimizer, counted from 0.
        """
        # Created at the first step, when the parameters are on their device.
        self._synchronized = self._synchronized or (self._ranks.synchronized(self),)
        (discriminate,) = self._synchronized
        losses = []
        for number, (real, generated) in enumerate(pairs):
            self.train(number == 0)
            with self._ranks.accumulating(discriminate, last=number == len(pairs) - 1):
                outputs = discriminate(torch.cat([real, generated.detach()]))
                halves = [output.split(len(real)) for output in outputs]
                loss = discriminator_loss([real for real, _ in halves], [generated for _, generated in halves])
                torch.autograd.backward(loss / len(pairs))
            losses.append(loss.detach())
        self.eval()
        self.optimizer.step(step)
        return torch.stack(losses).mean()

    def generator_losses(self, real: Tensor, generated: Tensor) -> GeneratorLosses:
        """Losses for the waveforms `real` and `generated`, [B, T] each, with gradients to `generated` only."""
        self.requires_grad_(False)
        try:
            with torch.no_grad():
                real_outputs = self(real)
            outputs = self(generated)
        finally:
            self.requires_grad_(True)
        return GeneratorLosses(adversarial_loss(outputs), feature_matching_loss(real_outputs, outputs))
