"""Residual quantizer: a chain of codebooks between two projections, independent of how the codes learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from codectok.model.convnext import truncated_normal_linear

from .base import FrameEncoder, Quantizer, QuantizerOutput
from .codebook import Codebook
from .diversity import diversity_loss
from .k_means import SEARCH_ROWS
from .search import CodeSearch, SearchMethod

AnyCodebook = TypeVar("AnyCodebook", bound=Codebook)


class ResidualQuantizer(Quantizer, Generic[AnyCodebook]):
    """Quantizes projected features by a chain of codebooks, each on the previous residual, and projects back."""

    def __init__(self, dim: int, codebook_dim: int, codebooks: Sequence[AnyCodebook]) -> None:
        super().__init__()
        same = dim == codebook_dim
        self.project_in = nn.Identity() if same else truncated_normal_linear(dim, codebook_dim)
        self.project_out = nn.Identity() if same else truncated_normal_linear(codebook_dim, dim)
        self.layers = nn.ModuleList(codebooks)
        self._measures_diversity = False

    def measure_diversity(self) -> None:
        """Compute a `diversity_loss` in every training pass."""
        self._measures_diversity = True

    def forward(self, features: Tensor) -> QuantizerOutput:
        """Quantize `features` [B, T, C]."""
        vectors = self.project_in(features)
        residual, quantized = vectors, torch.zeros_like(vectors)
        codes, losses, diversities = [], [], []
        for codebook in self._codebooks():
            if self._measures_diversity and self.training:
                diversities.append(diversity_loss(residual.flatten(0, 1), codebook.embedding))
            found = self._search(codebook, features.detach(), residual.detach())
            nearest = codebook.lookup(found)
            losses.append(codebook.commitment_loss(residual, nearest))
            residual = residual - nearest.detach()
            quantized = quantized + nearest.detach()
            codes.append(found)
        # One straight-through step for the whole chain: one per layer would multiply the encoder's gradient.
        passed = vectors + (quantized - vectors).detach()
        return QuantizerOutput(
            features=self.project_out(passed),
            codes=torch.stack(codes, dim=-1),
            commitment_loss=torch.stack(losses).mean(),
            diversity_loss=mean_of(diversities),
        )

    @torch.no_grad()
    def _search(self, codebook: AnyCodebook, features: Tensor, residual: Tensor) -> Tensor:
        """Find the codes [B, T] nearest to `residual`, for a single codebook directly from `features` if faster."""
        if len(self.layers) == 1 and isinstance(self.project_in, nn.Linear):
            rows = features.flatten(0, 1)
            if folding_pays_once(len(rows), self.project_in.in_features, self.project_in.out_features):
                search = _folded_search(self.project_in, codebook, rows.mean(0))
                return torch.cat([search(part) for part in torch.split(rows, SEARCH_ROWS)]).view(residual.shape[:2])
        return codebook.search(residual.flatten(0, 1)).view(residual.shape[:2])

    def encode(self, features: Tensor) -> Tensor:
        """Encode `features` [B, T, C] to codes [B, T, n_residuals]."""
        residual = self.project_in(features).flatten(0, 1)
        codes = []
        for codebook in self._codebooks():
            codes.append(codebook.search(residual))
            residual = residual - codebook.lookup(codes[-1])
        return torch.stack(codes, dim=-1).view(*features.shape[:2], -1)

    def decode(self, codes: Tensor) -> Tensor:
        """Decode `codes` [B, T, n_residuals] to features [B, T, C]."""
        vectors = [layer.lookup(c) for layer, c in zip(self._codebooks(), codes.unbind(-1), strict=True)]
        features: Tensor = self.project_out(torch.stack(vectors).sum(0))
        return features

    def distances(self, features: Tensor, codes: Tensor) -> Tensor:
        """Relative quantization error after each codebook, see `Quantizer.distances`."""
        residual = self.project_in(features)
        length = torch.linalg.vector_norm(residual, dim=-1)
        distances = []
        for codebook, layer_codes in zip(self._codebooks(), codes.unbind(-1), strict=True):
            residual = residual - codebook.lookup(layer_codes)
            distances.append(torch.linalg.vector_norm(residual, dim=-1) / length)
        return torch.stack(distances, dim=-1)

    @torch.no_grad()
    def frame_encoder(self, search: SearchMethod) -> FrameEncoder:
        """Return a search over all codebooks; folds the projection into a single codebook if that is faster."""
        project_in, codebooks = self.project_in, self._codebooks()
        if (
            len(codebooks) == 1
            and isinstance(project_in, nn.Linear)
            and folding_pays(len(codebooks[0].embedding), project_in.in_features, project_in.out_features)
        ):
            centre = _centre_of_features(project_in, codebooks[0])
            folded = _folded_search(project_in, codebooks[0], centre, search)
            return lambda rows: folded(rows).unsqueeze(1)
        searches = [
            CodeSearch(book.embedding, -book.half_squared_norms(), book.embedding.mean(0), search) for book in codebooks
        ]

        def encode(rows: Tensor) -> Tensor:
            residual = project_in(rows)
            codes = []
            for codebook, find in zip(codebooks, searches, strict=True):
                codes.append(find(residual))
                residual = residual - codebook.lookup(codes[-1])
            return torch.stack(codes, dim=1)

        return encode

    @property
    def codebooks(self) -> Tensor:
        """Code vectors [n_residuals, codebook_size, codebook_dim]."""
        return torch.stack([layer.embedding for layer in self._codebooks()])

    def prepare_for_training(self) -> None:
        """Prepare every codebook."""
        for layer in self._codebooks():
            layer.prepare_for_training()

    def _codebooks(self) -> list[AnyCodebook]:
        return cast("list[AnyCodebook]", list(self.layers))


def folding_pays(codebook_size: int, dim: int, codebook_dim: int) -> bool:
    """True if a product with a folded codebook costs less than the projection and a product with the codebook."""
    return codebook_size * dim < (codebook_size + dim) * codebook_dim


def folding_pays_once(n_rows: int, dim: int, codebook_dim: int) -> bool:
    """True if folding and then searching `n_rows` vectors clearly costs less than a search without folding."""
    return n_rows * (codebook_dim - dim) > 2 * codebook_dim * dim


def _folded_search(
    project_in: nn.Linear, codebook: Codebook, centre: Tensor, method: SearchMethod = "exact"
) -> CodeSearch:
    """Search for the code e nearest to W x + b without computing W x + b.

    argmin |W x + b - e|^2 = argmax x . (W^T e) + b . e - |e|^2 / 2.
    """
    weight, bias, embedding = project_in.weight, project_in.bias, codebook.embedding
    return CodeSearch(embedding @ weight, embedding @ bias - codebook.half_squared_norms(), centre, method)


def _centre_of_features(project_in: nn.Linear, codebook: Codebook) -> Tensor:
    """Return the feature [dim] whose projection is closest to the mean code (least squares)."""
    weight = project_in.weight
    square = weight.T @ weight
    # Regularized, in case the weight is rank-deficient.
    square += 1e-4 * square.diagonal().mean() * torch.eye(len(square), device=square.device)
    centre: Tensor = torch.linalg.solve(square, weight.T @ (codebook.embedding.mean(0) - project_in.bias))
    return centre


def mean_of(losses: Sequence[Tensor | None]) -> Tensor | None:
    """Average the losses that are not None; None if there are none."""
    found = [loss for loss in losses if loss is not None]
    return torch.stack(found).mean() if found else None
