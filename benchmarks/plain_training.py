"""A training step as the reference takes it, for comparison: every habit that costs time, and the same losses.

Spectrograms on the CPU, every loss fetched with `item`, real and generated waveforms one after the other through all
discriminators, gradients of the codec's loss for discriminators too, codebook statistics by products with dense one-hot
matrices, and a decoder that is always computed twice (activation checkpointing).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from codectok.model.quantization.vector import ResidualVectorQuantizer
from codectok.train.losses import adversarial_loss, discriminator_loss, feature_matching_loss
from codectok.train.optimizer import step_optimizer
from codectok.train.trainer import Trainer


class PlainStep:
    """Steps of the reference's kind with the networks, discriminators and optimizers of a trainer."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.quantizer = trainer.network.quantizer
        (group,) = self.quantizer.inner.groups
        self.group = cast(ResidualVectorQuantizer, group)
        self.counts = [torch.ones(len(book.embedding), device=trainer.device) for book in self.group.layers]
        self.sums = [book.embedding.clone() for book in self.group.layers]
        self.mel_loss = trainer.mel_loss.cpu()
        self.log_mel = trainer.log_mel.cpu()

    def __call__(self, waveform: Tensor) -> dict[str, float]:
        """One step on `waveform` [B, T]; its losses."""
        trainer, weights = self.trainer, self.trainer.config.loss
        real = waveform.to(trainer.device)
        log_mel = self.log_mel(waveform.cpu()).to(trainer.device)
        with trainer.autocast():
            features = trainer.network.encoder(log_mel)
            quantized, commitment = self._quantize(self.quantizer.downsample(features).float())
            quantized = self.quantizer.upsample(quantized)
            generated = checkpoint(trainer.network.decoder, quantized, use_reentrant=False).float()
        found: dict[str, float] = {}
        adversary = trainer.adversary
        adversary.train()
        loss = discriminator_loss(adversary(real), adversary(generated.detach()))
        loss.backward()
        step = trainer.step - trainer.config.discriminators.start_step
        step_optimizer(adversary.optimizer, adversary.optimizer_config, step)
        found["discriminator"] = loss.item()
        differences = self.mel_loss(generated.cpu(), real.cpu())
        total = self.mel_loss.total(differences).to(trainer.device)
        for term, difference in zip(weights.mel, differences, strict=True):
            found[f"mel_{term.n_fft}"] = difference.item()
        real_judgements, judgements = adversary(real), adversary(generated)
        asked, matched = adversarial_loss(judgements), feature_matching_loss(real_judgements, judgements)
        total = total + weights.adversarial * asked + weights.feature_matching * matched
        total = total + weights.commitment * commitment
        found |= {"adversarial": asked.item(), "feature_matching": matched.item(), "commitment": commitment.item()}
        total.backward()
        step_optimizer(trainer.optimizer, trainer.config.generator_optimizer, trainer.step)
        trainer.step += 1
        adversary.optimizer.zero_grad()
        found["generator"] = total.item()
        return found

    def _quantize(self, features: Tensor) -> tuple[Tensor, Tensor]:
        vectors = self.group.project_in(features)
        residual, quantized, losses = vectors, torch.zeros_like(vectors), []
        for number, book in enumerate(self.group.layers):
            rows = residual.detach().flatten(0, 1)
            distances = rows.square().sum(1, keepdim=True) - 2 * rows @ book.embedding.T
            codes = (distances + book.embedding.square().sum(1)).argmin(1)
            one_hot = F.one_hot(codes, len(book.embedding)).to(rows.dtype)
            nearest = (one_hot @ book.embedding).view_as(vectors)
            losses.append(F.mse_loss(residual, nearest))
            self._update(number, one_hot, rows)
            residual = residual - nearest
            quantized = quantized + nearest
        passed = vectors + (quantized - vectors).detach()
        return self.group.project_out(passed), torch.stack(losses).mean()

    @torch.no_grad()
    def _update(self, number: int, one_hot: Tensor, rows: Tensor) -> None:
        decay = self.quantizer.config.ema_decay
        book, counts, sums = self.group.layers[number], self.counts[number], self.sums[number]
        counts.lerp_(one_hot.sum(0), 1 - decay)
        sums.lerp_(one_hot.T @ rows, 1 - decay)
        smoothed = (counts + 1e-5) / (counts.sum() + len(counts) * 1e-5) * counts.sum()
        book.embedding = sums / smoothed.unsqueeze(1)
