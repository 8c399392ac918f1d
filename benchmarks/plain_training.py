"""Baseline training step that works like the reference's: the same losses, without optimizations.

It computes spectrograms on the CPU, fetches every loss with `item`, passes real and generated waveforms through the
discriminators separately, computes gradients of the codec's loss for the discriminators too, collects codebook
statistics with dense one-hot matrices, computes a diversity loss of weight 0, computes residual blocks of the decoder
twice (activation checkpointing), and uses default optimizers.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from codectok.model.hifigan import HiFiGANDecoder
from codectok.model.quantization.grvq import ResidualVectorQuantizer
from codectok.train import Trainer
from codectok.train.discriminators import DiscriminatorOutput
from codectok.train.recipe import OptimizerConfig
from codectok.train.trainer.losses import adversarial_loss, discriminator_loss
from codectok.train.trainer.optimizer import learning_rate

DIVERSITY_TEMPERATURE = 100.0


class PlainStep:
    """Runs plain steps with the networks, discriminators and optimizers of a trainer."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.quantizer = trainer.network.quantizer
        (group,) = self.quantizer.inner.groups
        self.group = cast(ResidualVectorQuantizer, group)
        self.counts = [torch.ones(len(book.embedding), device=trainer.device) for book in self.group.layers]
        self.sums = [book.embedding.clone() for book in self.group.layers]
        self.optimizer = _adamw(trainer.network, trainer.config.generator_optimizer)
        self.adversary_optimizer = _adamw(trainer.adversary, trainer.config.discriminator_optimizer)
        self.mel_loss = trainer.mel_loss.cpu()
        self.log_mel = trainer.log_mel.cpu()

    def __call__(self, waveform: Tensor) -> dict[str, float]:
        """Run one step on `waveform` [B, T], and return its losses."""
        trainer, weights = self.trainer, self.trainer.config.loss
        real = waveform.to(trainer.device)
        log_mel = self.log_mel(waveform.cpu()).to(trainer.device)
        with trainer.autocast():
            features = trainer.network.encoder(log_mel)
            quantized, commitment, diversity = self._quantize(self.quantizer.downsample(features).float())
            quantized = self.quantizer.upsample(quantized)
            generated = _decode(trainer.network.decoder, quantized).float()
        found: dict[str, float] = {}
        adversary = trainer.adversary
        adversary.train()
        loss = discriminator_loss(adversary(real), adversary(generated.detach()))
        loss.backward()
        step = trainer.step - trainer.config.discriminators.start_step
        _step(self.adversary_optimizer, trainer.config.discriminator_optimizer, step)
        found["discriminator"] = loss.item()
        differences = self.mel_loss(generated.cpu(), real.cpu())
        total = self.mel_loss.total(differences).to(trainer.device)
        for term, difference in zip(weights.mel, differences, strict=True):
            found[f"mel_{term.n_fft}"] = difference.item()
        real_outputs, outputs = adversary(real), adversary(generated)
        asked, matched = adversarial_loss(outputs), _feature_matching(real_outputs, outputs)
        total = total + weights.adversarial * asked + weights.feature_matching * matched
        total = total + weights.commitment * commitment + 0.0 * diversity
        found |= {"adversarial": asked.item(), "feature_matching": matched.item(), "commitment": commitment.item()}
        total.backward()
        _step(self.optimizer, trainer.config.generator_optimizer, trainer.step)
        trainer.step += 1
        adversary.zero_grad()
        found["generator"] = total.item()
        return found

    def _quantize(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return quantized features, and commitment and diversity as means over the codebooks."""
        vectors = self.group.project_in(features)
        residual, quantized = vectors, torch.zeros_like(vectors)
        losses, diversities = [], []
        for number, book in enumerate(self.group.layers):
            rows = residual.flatten(0, 1)
            squares = rows.square().sum(1, keepdim=True) - 2 * rows @ book.embedding.T
            # The square root has no gradient at 0.
            distances = (squares + book.embedding.square().sum(1)).clamp(min=1e-12).sqrt()
            diversities.append(_diversity(distances.unflatten(0, vectors.shape[:2])))
            one_hot = F.one_hot(distances.argmin(1), len(book.embedding)).to(rows.dtype)
            nearest = (one_hot @ book.embedding).view_as(vectors)
            losses.append(F.mse_loss(residual, nearest))
            self._update(number, one_hot, rows)
            residual = residual - nearest
            quantized = quantized + nearest
        passed = vectors + (quantized - vectors).detach()
        return self.group.project_out(passed), torch.stack(losses).mean(), torch.stack(diversities).mean()

    @torch.no_grad()
    def _update(self, number: int, one_hot: Tensor, rows: Tensor) -> None:
        decay = self.quantizer.config.ema_decay
        book, counts, sums = self.group.layers[number], self.counts[number], self.sums[number]
        counts.lerp_(one_hot.sum(0), 1 - decay)
        sums.lerp_(one_hot.T @ rows, 1 - decay)
        smoothed = (counts + 1e-5) / (counts.sum() + len(counts) * 1e-5) * counts.sum()
        book.embedding = sums / smoothed.unsqueeze(1)


def _adamw(module: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        module.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )


def _step(optimizer: torch.optim.Optimizer, config: OptimizerConfig, step: int) -> None:
    (group,) = optimizer.param_groups
    group["lr"] = learning_rate(config, step)
    if config.max_gradient_norm is not None:
        nn.utils.clip_grad_norm_(group["params"], config.max_gradient_norm)
    optimizer.step()
    optimizer.zero_grad()


def _decode(decoder: HiFiGANDecoder, features: Tensor) -> Tensor:
    x = decoder.pre(features.transpose(1, 2))
    for upsample, blocks in zip(decoder.upsamples, decoder.blocks, strict=True):
        x = checkpoint(_mean_of_blocks, blocks, upsample(F.silu(x)), use_reentrant=False)
    return torch.tanh(decoder.post(F.silu(x))).squeeze(1)


def _mean_of_blocks(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    return torch.stack([block(x) for block in blocks]).mean(0)


def _diversity(distances: Tensor) -> Tensor:
    """Negative entropy of the code shares, averaged over the batch per frame; `distances` [B, T, codebook_size]."""
    shares = torch.softmax(DIVERSITY_TEMPERATURE * distances, dim=-1).mean(0)
    return (shares * shares.clamp(min=1e-5).log()).sum(-1).mean()


def _feature_matching(real: list[DiscriminatorOutput], generated: list[DiscriminatorOutput]) -> Tensor:
    pairs = [pair for r, g in zip(real, generated, strict=True) for pair in zip(r.features, g.features, strict=True)]
    return torch.stack([(r - g).abs().mean() for r, g in pairs]).sum()
