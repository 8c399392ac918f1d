"""Quantizers that learn from synthetic features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import ModuleDict
from torch.nn.utils.parametrize import ParametrizationList

from codectok.config import QuantizerConfig
from codectok.model.quantization.build import build_quantizer
from codectok.model.quantization.codebook import EMACodebook
from codectok.model.quantization.grvq import GroupedResidualVectorQuantizer, ResidualVectorQuantizer
from codectok.model.quantization.simvq import LinearMap, MappedCodebook, SimVectorQuantizer
from codectok.model.quantization.temporal import TemporalQuantizer


def make_quantizer(config: QuantizerConfig, dim: int) -> TemporalQuantizer:
    """Create a quantizer in training mode, always with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        quantizer = build_quantizer(config, dim)
    quantizer.prepare_for_training()
    return quantizer.train()


def first_group(quantizer: TemporalQuantizer) -> ResidualVectorQuantizer:
    """Return the quantizer of the first group of channels."""
    assert isinstance(quantizer.inner, GroupedResidualVectorQuantizer)
    group = quantizer.inner.groups[0]
    assert isinstance(group, ResidualVectorQuantizer)
    return group


def codebooks_of(group: ResidualVectorQuantizer) -> list[EMACodebook]:
    """Return the codebooks of a group, in the order of residuals."""
    codebooks = []
    for codebook in group.layers:
        assert isinstance(codebook, EMACodebook)
        codebooks.append(codebook)
    return codebooks


def first_codebook(quantizer: TemporalQuantizer) -> EMACodebook:
    """Return the first codebook of the first group."""
    return codebooks_of(first_group(quantizer))[0]


def simvq_codes_and_map(quantizer: TemporalQuantizer) -> tuple[Tensor, LinearMap]:
    """Return the fixed codes of a SimVQ codebook in training, and the map that it learns."""
    assert isinstance(quantizer.inner, SimVectorQuantizer)
    codebook = quantizer.inner.layers[0]
    assert isinstance(codebook, MappedCodebook)
    parametrizations = codebook.parametrizations
    assert isinstance(parametrizations, ModuleDict)
    embedding = parametrizations["embedding"]
    assert isinstance(embedding, ParametrizationList)
    linear_map = embedding[0]
    assert isinstance(linear_map, LinearMap)
    return embedding.original, linear_map


def learn(quantizer: TemporalQuantizer, batches: Iterable[Tensor]) -> list[float]:
    """Train for one step on each of `batches` [B, T, C]; return the share of replaced codes after each."""
    expired = []
    for batch in batches:
        quantizer.update_codebooks([quantizer(batch).frames])
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
