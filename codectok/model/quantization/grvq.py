"""Grouped residual vector quantization with EMA codebooks."""

from __future__ import annotations

import itertools
from typing import cast

import torch
from torch import Tensor, nn

from codectok.config import VectorQuantizerConfig

from .base import FrameEncoder, Quantizer, QuantizerOutput
from .codebook import EMACodebook
from .distributed import gather_rows, n_ranks, sum_over_ranks
from .reservoir import Reservoir
from .residual import ResidualQuantizer, mean_of
from .scatter import add_rows
from .search import SearchMethod

# A larger codebook has a larger reservoir, since all its codes may have to be replaced at once.
MIN_RESERVOIR_VECTORS = 8192


class ResidualVectorQuantizer(ResidualQuantizer[EMACodebook]):
    """A residual quantizer whose codebooks learn by exponential moving averages."""

    def __init__(self, config: VectorQuantizerConfig, dim: int) -> None:
        size, codebook_dim, decay = config.codebook_size, config.codebook_dim, config.ema_decay
        codebooks = [EMACodebook(size, codebook_dim, decay) for _ in range(config.n_residuals)]
        super().__init__(dim, codebook_dim, codebooks)

    def initialize(self, features: Tensor, generator: torch.Generator) -> None:
        """Set every codebook to the k-means of the residuals of `features` [n, C] before it."""
        residual = self.project_in(features)
        codebooks = self._codebooks()
        codebooks[0].initialize(residual, generator)
        for before, codebook in itertools.pairwise(codebooks):
            residual = residual - before.lookup(before.search(residual))
            codebook.initialize(residual, generator)

    def learn(self, features: Tensor, codes: Tensor, counts: Tensor) -> None:
        """Update the codebooks, see `Quantizer.learn`."""
        n_codebooks, n_codes = counts.shape
        # The projection is linear, so the sums of a single codebook can be taken before it.
        width = features.shape[1] if n_codebooks == 1 else n_codebooks * self._codebooks()[0].embedding.shape[1]
        # Exchange all tokens or one sum per code, whatever is less; an all-reduce moves sums twice.
        if n_ranks() * features.numel() < 2 * n_codes * width:
            self._learn_from_tokens(gather_rows(features), gather_rows(codes))
        elif n_codebooks == 1:
            self._learn_from_sums(features, codes[:, 0], counts[0])
        else:
            self._learn_from_sums_of_residuals(features, codes, counts)

    def _learn_from_tokens(self, features: Tensor, codes: Tensor) -> None:
        residual = self.project_in(features)
        ones = residual.new_ones(len(residual))
        for codebook, found in zip(self._codebooks(), codes.unbind(1), strict=True):
            left_over = residual - codebook.lookup(found)
            codebook.update(found, ones, residual)
            residual = left_over

    def _learn_from_sums(self, features: Tensor, codes: Tensor, counts: Tensor) -> None:
        weights = counts.to(features.dtype)
        sums = add_rows(features.new_zeros(len(counts), features.shape[1]), codes, features)
        sums = sum_over_ranks(sums)
        if isinstance(self.project_in, nn.Linear):
            sums = torch.addmm(weights.unsqueeze(1) * self.project_in.bias, sums, self.project_in.weight.T)
        self._codebooks()[0].update(torch.arange(len(counts), device=counts.device), weights, sums)

    def _learn_from_sums_of_residuals(self, features: Tensor, codes: Tensor, counts: Tensor) -> None:
        residual = self.project_in(features)
        all_codes = torch.arange(counts.shape[1], device=counts.device)
        for codebook, found, weights in zip(self._codebooks(), codes.unbind(1), counts, strict=True):
            left_over = residual - codebook.lookup(found)
            sums = sum_over_ranks(add_rows(torch.zeros_like(codebook.embedding), found, residual))
            codebook.update(all_codes, weights.to(sums.dtype), sums)
            residual = left_over

    def replace(self, expired: Tensor, features: Tensor) -> Tensor:
        """Replace the codes `expired` [n_residuals, codebook_size] by residuals of `features` [n, C].

        Returns:
            bool [n_residuals, codebook_size], True for replaced codes.
        """
        # Compute all residuals before any code is replaced.
        residuals, codebooks = [self.project_in(features)], self._codebooks()
        for codebook in codebooks[:-1]:
            residuals.append(residuals[-1] - codebook.lookup(codebook.search(residuals[-1])))
        layers = zip(codebooks, expired, residuals, strict=True)
        return torch.stack([codebook.replace(codes, residual) for codebook, codes, residual in layers])


class GroupedResidualVectorQuantizer(Quantizer):
    """Splits channels into equal groups with one residual quantizer each; codes are in group-major order."""

    def __init__(self, config: VectorQuantizerConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.dim = dim
        self.groups = nn.ModuleList(
            ResidualVectorQuantizer(config, dim // config.n_groups) for _ in range(config.n_groups)
        )
        self.reservoir: Reservoir | None = None

    def forward(self, features: Tensor) -> QuantizerOutput:
        """Quantize `features` [B, T, C]."""
        outputs = [group(part) for group, part in zip(self._groups(), self._split(features), strict=True)]
        return QuantizerOutput(
            features=torch.cat([output.features for output in outputs], dim=-1),
            codes=torch.cat([output.codes for output in outputs], dim=-1),
            commitment_loss=torch.stack([output.commitment_loss for output in outputs]).mean(),
            diversity_loss=mean_of([output.diversity_loss for output in outputs]),
        )

    def encode(self, features: Tensor) -> Tensor:
        """Encode `features` [B, T, C] to codes [B, T, n_groups * n_residuals]."""
        parts = zip(self._groups(), self._split(features), strict=True)
        return torch.cat([group.encode(part) for group, part in parts], dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Decode `codes` [B, T, n_groups * n_residuals] to features [B, T, C]."""
        parts = zip(self._groups(), codes.chunk(len(self.groups), dim=-1), strict=True)
        return torch.cat([group.decode(part) for group, part in parts], dim=-1)

    def distances(self, features: Tensor, codes: Tensor) -> Tensor:
        """Concatenate the relative errors of all groups, see `Quantizer.distances`."""
        parts = zip(self._groups(), self._split(features), codes.chunk(len(self.groups), dim=-1), strict=True)
        return torch.cat([group.distances(part, part_codes) for group, part, part_codes in parts], dim=-1)

    def frame_encoder(self, search: SearchMethod) -> FrameEncoder:
        """Run the frame encoders of all groups on their channels."""
        encoders = [group.frame_encoder(search) for group in self._groups()]
        return lambda rows: torch.cat([e(part) for e, part in zip(encoders, self._split(rows), strict=True)], dim=1)

    @property
    def codebooks(self) -> Tensor:
        """Code vectors [n_groups * n_residuals, codebook_size, codebook_dim]."""
        return torch.cat([group.codebooks for group in self._groups()])

    def measure_diversity(self) -> None:
        """Compute a `diversity_loss` for every group."""
        for group in self._groups():
            group.measure_diversity()

    def prepare_for_training(self) -> None:
        """Add EMA counts to every codebook, and a reservoir if unused codes are replaced."""
        for group in self._groups():
            group.prepare_for_training()
        if self.config.expiry_share:
            capacity = max(MIN_RESERVOIR_VECTORS, self.config.codebook_size)
            device = self._groups()[0]._codebooks()[0].embedding.device
            self.reservoir = Reservoir(capacity, self.dim).to(device)

    def initialize_codebooks(self, features: Tensor, seed: int) -> None:
        """Initialize the codebooks by k-means of `features` [B, T, C], equal on every rank."""
        generator = torch.Generator(features.device).manual_seed(seed)
        for group, part in zip(self._groups(), self._split(features.flatten(0, 1)), strict=True):
            group.initialize(part, generator)

    def learn(self, features: Tensor, codes: Tensor, counts: Tensor) -> None:
        """Update the codebooks of every group, and add features to the reservoir."""
        n_groups = len(self.groups)
        parts = zip(self._split(features), codes.chunk(n_groups, dim=1), counts.chunk(n_groups), strict=True)
        for group, part in zip(self._groups(), parts, strict=True):
            group.learn(*part)
        if self.reservoir is not None:
            self.reservoir.add(features)

    def replace_unused(self, counts: Tensor, n_tokens: int) -> Tensor:
        """Replace codes used less than `expiry_share` of uniform use by features from the reservoir."""
        if self.reservoir is None:
            return super().replace_unused(counts, n_tokens)
        n_codes = counts.shape[1]
        expired = (counts < self.config.expiry_share * n_tokens / n_codes).chunk(len(self.groups))
        parts = self._split(self.reservoir.draw(n_codes))
        groups = zip(self._groups(), expired, parts, strict=True)
        return torch.cat([group.replace(codes, part) for group, codes, part in groups])

    def _split(self, features: Tensor) -> tuple[Tensor, ...]:
        return features.chunk(len(self.groups), dim=-1)

    def _groups(self) -> list[ResidualVectorQuantizer]:
        return cast("list[ResidualVectorQuantizer]", list(self.groups))
