"""SimVQ (Zhu et al. 2024, arXiv 2411.02038): fixed codes behind one learned linear map.

The map moves all codes together, used or not, so that no code dies. For inference it is folded into the codes: a
trained codec has an ordinary codebook, and further training starts from that codebook and an identity map.
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
from .residual import ResidualQuantizer


class LinearMap(nn.Module):
    """A learned matrix, initialized to the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(dim))

    def forward(self, vectors: Tensor) -> Tensor:
        """Map `vectors` [..., dim] to the same shape."""
        return F.linear(vectors, self.weight)


class MappedCodebook(Codebook):
    """A codebook that is the product of fixed codes and a learned map during training."""

    def __init__(self, codebook_size: int, codebook_dim: int) -> None:
        super().__init__(codebook_size, codebook_dim)
        nn.init.normal_(self.embedding, std=codebook_dim**-0.5)

    def prepare_for_training(self) -> None:
        """Add the map: from now on `embedding` is computed from fixed codes."""
        linear_map = LinearMap(self.embedding.shape[1]).to(self.embedding.device)
        parametrize.register_parametrization(self, "embedding", linear_map)

    def initialize(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Set the fixed codes to the k-means of `vectors` [n, codebook_dim], while the map is the identity.

        Gaussian codes around zero start badly: features are not centred, so that all have the same nearest code.
        """
        self._parametrization().original.copy_(k_means(vectors, len(self.embedding), generator))

    def lookup(self, codes: Tensor) -> Tensor:
        """Look up the code vectors [..., codebook_dim] of `codes` [...]; in training with a gradient for the map."""
        if not parametrize.is_parametrized(self, "embedding"):
            return super().lookup(codes)
        # Map only the requested codes: less work than mapping all.
        parametrization = self._parametrization()
        vectors: Tensor = parametrization[0](F.embedding(codes, parametrization.original))
        return vectors

    def commitment_loss(self, vectors: Tensor, nearest: Tensor) -> Tensor:
        """Mean squared difference of `vectors` and `nearest`, once for the gradient of each of the two."""
        return F.mse_loss(vectors, nearest.detach()) + F.mse_loss(nearest, vectors.detach())

    def _parametrization(self) -> parametrize.ParametrizationList:
        return cast("parametrize.ParametrizationList", cast("Any", self.parametrizations)["embedding"])


class SimVectorQuantizer(ResidualQuantizer[MappedCodebook]):
    """One mapped codebook between two projections."""

    def __init__(self, config: SimVectorQuantizerConfig, dim: int) -> None:
        super().__init__(dim, config.codebook_dim, [MappedCodebook(config.codebook_size, config.codebook_dim)])

    def initialize_codebooks(self, features: Tensor, seed: int) -> None:
        """Initialize the fixed codes by k-means of `features` [B, T, C], equal on every rank."""
        generator = torch.Generator(features.device).manual_seed(seed)
        vectors = self.project_in(features.flatten(0, 1))
        self._codebooks()[0].initialize(vectors, generator)
