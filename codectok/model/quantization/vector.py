"""Grouped residual vector quantization."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...config import VectorQuantizerConfig
from ..convnext import truncated_normal_linear
from .base import FrameEncoder, Quantizer, QuantizerOutput
from .codebook import Codebook
from .search import CodeSearch


class ResidualVectorQuantizer(Quantizer):
    """Projection in, a chain of codebooks that each quantize what the ones before left over, projection out."""

    def __init__(self, config: VectorQuantizerConfig, dim: int) -> None:
        super().__init__()
        same = dim == config.codebook_dim
        self.project_in = nn.Identity() if same else truncated_normal_linear(dim, config.codebook_dim)
        self.project_out = nn.Identity() if same else truncated_normal_linear(config.codebook_dim, dim)
        self.layers = nn.ModuleList(
            Codebook(config.codebook_size, config.codebook_dim, config.ema_decay) for _ in range(config.n_residuals)
        )

    def forward(self, features: Tensor) -> QuantizerOutput:
        """Quantize `features` [B, T, C]; in training mode the codebooks move towards them."""
        vectors = self.project_in(features)
        residual, quantized = vectors, torch.zeros_like(vectors)
        codes, losses, expired = [], [], []
        for codebook in self._codebooks():
            rows = residual.detach().flatten(0, 1)
            flat_codes = codebook.search(rows)
            nearest = codebook.lookup(flat_codes).view_as(vectors)
            losses.append(F.mse_loss(residual, nearest))
            if self.training:
                expired.append(codebook.update(rows, flat_codes))
            residual = residual - nearest
            quantized = quantized + nearest
            codes.append(flat_codes.view(vectors.shape[:2]))
        # Straight through once for the whole chain: once per layer would multiply the encoder's gradient.
        passed = vectors + (quantized - vectors).detach()
        return QuantizerOutput(
            features=self.project_out(passed),
            codes=torch.stack(codes, dim=-1),
            commitment_loss=torch.stack(losses).mean(),
            metrics={"expired_codes": torch.stack(expired).sum()} if expired else {},
        )

    def encode(self, features: Tensor) -> Tensor:
        """Codes [B, T, n_residuals] of `features` [B, T, C]."""
        residual = self.project_in(features).flatten(0, 1)
        codes = []
        for codebook in self._codebooks():
            codes.append(codebook.search(residual))
            residual = residual - codebook.lookup(codes[-1])
        return torch.stack(codes, dim=-1).view(*features.shape[:2], -1)

    def decode(self, codes: Tensor) -> Tensor:
        """Features [B, T, C] of `codes` [B, T, n_residuals]."""
        vectors = [layer.lookup(c) for layer, c in zip(self._codebooks(), codes.unbind(-1), strict=True)]
        return self.project_out(torch.stack(vectors).sum(0))

    def distances(self, features: Tensor, codes: Tensor) -> Tensor:
        """Of each layer's code to the residual that it was given."""
        residual = self.project_in(features)
        length = torch.linalg.vector_norm(residual, dim=-1)
        distances = []
        for codebook, layer_codes in zip(self._codebooks(), codes.unbind(-1), strict=True):
            residual = residual - codebook.lookup(layer_codes)
            distances.append(torch.linalg.vector_norm(residual, dim=-1) / length)
        return torch.stack(distances, dim=-1)

    @torch.no_grad()
    def frame_encoder(self, reduced: bool) -> FrameEncoder:
        """A search for each codebook; for a single one the projection is folded into the codebook where that pays."""
        project_in, codebooks = self.project_in, self._codebooks()
        if (
            len(codebooks) == 1
            and isinstance(project_in, nn.Linear)
            and folding_pays(len(codebooks[0].embedding), project_in.in_features, project_in.out_features)
        ):
            search = _folded_search(project_in, codebooks[0], reduced)
            return lambda rows: search(rows).unsqueeze(1)
        searches = [
            CodeSearch(book.embedding, -book.half_squared_norms(), book.embedding.mean(0), reduced)
            for book in codebooks
        ]

        def encode(rows: Tensor) -> Tensor:
            residual = project_in(rows)
            codes = []
            for codebook, search in zip(codebooks, searches, strict=True):
                codes.append(search(residual))
                residual = residual - codebook.lookup(codes[-1])
            return torch.stack(codes, dim=1)

        return encode

    @property
    def codebooks(self) -> Tensor:
        """Code vectors [n_residuals, codebook_size, codebook_dim]."""
        return torch.stack([layer.embedding for layer in self._codebooks()])

    def prepare_for_training(self) -> None:
        """Add moving averages to every codebook."""
        for layer in self._codebooks():
            layer.prepare_for_training()

    @torch.no_grad()
    def initialize_codebooks(self, features: Tensor) -> None:
        """Place every codebook on what the ones before it leave over of `features` [B, T, C]."""
        residual = self.project_in(features).flatten(0, 1)
        for layer in self._codebooks():
            layer.initialize(residual)
            residual = residual - layer.lookup(layer.search(residual))

    def _codebooks(self) -> list[Codebook]:
        return cast("list[Codebook]", list(self.layers))


def folding_pays(codebook_size: int, dim: int, codebook_dim: int) -> bool:
    """Whether one product with a folded codebook costs less than the projection and one with the codebook."""
    return codebook_size * dim < (codebook_size + dim) * codebook_dim


def _folded_search(project_in: nn.Linear, codebook: Codebook, reduced: bool) -> CodeSearch:
    """Search for the code e nearest to W x + b without computing it.

    |W x + b - e|^2 is smallest where x . (W^T e) + b . e - |e|^2 / 2 is largest.
    """
    weight, bias, embedding = project_in.weight, project_in.bias, codebook.embedding
    # The feature that comes closest to the mean code; a little of the identity, should the weight lack rank.
    square = weight.T @ weight
    square += 1e-4 * square.diagonal().mean() * torch.eye(len(square), device=square.device)
    centre = torch.linalg.solve(square, weight.T @ (embedding.mean(0) - bias))
    return CodeSearch(embedding @ weight, embedding @ bias - codebook.half_squared_norms(), centre, reduced)


class GroupedResidualVectorQuantizer(Quantizer):
    """Channels in equal groups, each with a residual quantizer of its own; codes are ordered group by group."""

    def __init__(self, config: VectorQuantizerConfig, dim: int) -> None:
        super().__init__()
        self.groups = nn.ModuleList(
            ResidualVectorQuantizer(config, dim // config.n_groups) for _ in range(config.n_groups)
        )

    def forward(self, features: Tensor) -> QuantizerOutput:
        """Quantize `features` [B, T, C]."""
        outputs = [group(part) for group, part in zip(self._groups(), self._split(features), strict=True)]
        return QuantizerOutput(
            features=torch.cat([output.features for output in outputs], dim=-1),
            codes=torch.cat([output.codes for output in outputs], dim=-1),
            commitment_loss=torch.stack([output.commitment_loss for output in outputs]).mean(),
            metrics={key: torch.stack([o.metrics[key] for o in outputs]).sum() for key in outputs[0].metrics},
        )

    def encode(self, features: Tensor) -> Tensor:
        """Codes [B, T, n_groups * n_residuals] of `features` [B, T, C]."""
        parts = zip(self._groups(), self._split(features), strict=True)
        return torch.cat([group.encode(part) for group, part in parts], dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Features [B, T, C] of `codes` [B, T, n_groups * n_residuals]."""
        parts = zip(self._groups(), codes.chunk(len(self.groups), dim=-1), strict=True)
        return torch.cat([group.decode(part) for group, part in parts], dim=-1)

    def distances(self, features: Tensor, codes: Tensor) -> Tensor:
        """Those of all groups."""
        parts = zip(self._groups(), self._split(features), codes.chunk(len(self.groups), dim=-1), strict=True)
        return torch.cat([group.distances(part, own) for group, part, own in parts], dim=-1)

    def frame_encoder(self, reduced: bool) -> FrameEncoder:
        """The groups' encoders side by side."""
        encoders = [group.frame_encoder(reduced) for group in self._groups()]
        return lambda rows: torch.cat([e(part) for e, part in zip(encoders, self._split(rows), strict=True)], dim=1)

    @property
    def codebooks(self) -> Tensor:
        """Code vectors [n_groups * n_residuals, codebook_size, codebook_dim]."""
        return torch.cat([group.codebooks for group in self._groups()])

    def prepare_for_training(self) -> None:
        """Add moving averages to every codebook."""
        for group in self._groups():
            group.prepare_for_training()

    def initialize_codebooks(self, features: Tensor) -> None:
        """Start every group's codebooks from its share of `features` [B, T, C]."""
        for group, part in zip(self._groups(), self._split(features), strict=True):
            group.initialize_codebooks(part)

    def _split(self, features: Tensor) -> tuple[Tensor, ...]:
        return features.chunk(len(self.groups), dim=-1)

    def _groups(self) -> list[ResidualVectorQuantizer]:
        return cast("list[ResidualVectorQuantizer]", list(self.groups))
