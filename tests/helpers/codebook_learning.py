"""Quantizers that learn from synthetic features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from codectok.config import QuantizerConfig
from codectok.model.quantization import build_quantizer
from codectok.model.quantization.temporal import TemporalQuantizer


def make_quantizer(config: QuantizerConfig, dim: int) -> TemporalQuantizer:
    """Create a quantizer in training mode, always with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        quantizer = build_quantizer(config, dim)
    quantizer.prepare_for_training()
    return quantizer.train()


def learn(quantizer: TemporalQuantizer, batches: Iterable[Tensor]) -> list[float]:
    """Train for one step on each of `batches` [B, T, C]; return the share of replaced codes after each."""
    expired = []
    for batch in batches:
        quantizer(batch)
        quantizer.update_codebooks()
        expired.append(float(quantizer.codebook_metrics()["codebook_expired_share"]))
    return expired


class Clusters:
    """Features around `n` random centres; each batch uses a subset of them."""

    def __init__(self, n: int, dim: int, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._centres = torch.randn(n, dim, generator=self._generator)

    def batch(self, frames: int, present: int) -> Tensor:
        """Features [1, frames, dim] around `present` of the centres."""
        generator, centres = self._generator, self._centres
        some = centres[torch.randperm(len(centres), generator=generator)[:present]]
        chosen = some[torch.randint(present, (frames,), generator=generator)]
        return (chosen + 0.1 * torch.randn(chosen.shape, generator=generator)).unsqueeze(0)

    def batches(self, n: int, frames: int, present: int) -> Iterator[Tensor]:
        """Generate `n` batches."""
        return (self.batch(frames, present) for _ in range(n))
