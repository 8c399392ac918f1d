"""SimVQ (Zhu et al. 2024, arXiv 2411.02038): fixed codes behind one learned linear map.

The map moves all codes together, used or not, so that none is left behind. For inference it is multiplied out: a
codec that has been trained has an ordinary codebook, and training it further starts from that one and an identity map.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from codectok.config import SimVectorQuantizerConfig

from .codebook import Codebook
from .k_means import k_means
from .residual import CodebookChain


class LinearMap(nn.Module):
    """A learned matrix, the identity at first."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(dim))

    def forward(self, vectors: Tensor) -> Tensor:
        """Map vectors [..., dim] to the same shape."""
        return F.linear(vectors, self.weight)


class MappedCodebook(Codebook):
    """A codebook that is, while it is trained, the product of fixed codes and a learned map."""

    def __init__(self, codebook_size: int, codebook_dim: int) -> None:
        super().__init__(codebook_size, codebook_dim)
        nn.init.normal_(self.embedding, std=codebook_dim**-0.5)

    def prepare_for_training(self) -> None:
        """Put the map behind the codes: from now on `embedding` is computed."""
        linear_map = LinearMap(self.embedding.shape[1]).to(self.embedding.device)
        parametrize.register_parametrization(self, "embedding", linear_map)

    def initialize(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Fix the codes on the k-means of `vectors` [n, codebook_dim], for a map that is still the identity.

        Gaussian codes around zero would do badly at first: features have a mean, and all point to the same code.
        """
        self._training_form().original.copy_(k_means(vectors, len(self.embedding), generator))

    def lookup(self, codes: Tensor) -> Tensor:
        """Code vectors [..., codebook_dim] of `codes` [...]; in training with a gradient for the map."""
        if not parametrize.is_parametrized(self, "embedding"):
            return super().lookup(codes)
        # Mapping the codes that are asked for is less work than mapping all.
        form = self._training_form()
        return form[0](F.embedding(codes, form.original))

    def commitment_loss(self, vectors: Tensor, nearest: Tensor) -> Tensor:
        """What pulls `vectors` to their `nearest` codes, and the map so that codes come nearer to their vectors."""
        return F.mse_loss(vectors, nearest.detach()) + F.mse_loss(nearest, vectors.detach())

    def _training_form(self) -> parametrize.ParametrizationList:
        return cast("Any", self.parametrizations)["embedding"]


class SimVectorQuantizer(CodebookChain[MappedCodebook]):
    """One mapped codebook between two projections."""

    def __init__(self, config: SimVectorQuantizerConfig, dim: int) -> None:
        super().__init__(dim, config.codebook_dim, [MappedCodebook(config.codebook_size, config.codebook_dim)])

    def initialize_codebooks(self, features: Tensor, seed: int) -> None:
        """Fix the codes on the k-means of `features` [B, T, C], the same on every rank."""
        generator = torch.Generator(features.device).manual_seed(seed)
        vectors = self.project_in(features.flatten(0, 1))
        self._codebooks()[0].initialize(vectors, generator)
