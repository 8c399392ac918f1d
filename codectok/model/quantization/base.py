"""Interface of all quantizers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codectok.errors import ConfigError

from .search import SearchMethod

FrameEncoder = Callable[[Tensor], Tensor]
"""Maps features float32 [n, C] to codes [n, n_codebooks], each row independently."""


@dataclass
class QuantizerOutput:
    """Result of a quantizer in a training pass.

    Attributes:
        features: quantized features [B, T, C], with the straight-through gradient.
        codes: [B, T', n_codebooks] int64.
        commitment_loss: scalar, unweighted; zero for a quantizer without one.
        diversity_loss: scalar, unweighted, see `diversity`; None unless `measure_diversity` was called.
    """

    features: Tensor
    codes: Tensor
    commitment_loss: Tensor
    diversity_loss: Tensor | None = None


class Quantizer(nn.Module, ABC):
    """Maps features [B, T, C] to codes [B, T', n_codebooks] and codes to features."""

    @abstractmethod
    def forward(self, features: Tensor) -> QuantizerOutput:
        """Quantize `features` [B, T, C] with gradients."""

    @abstractmethod
    def encode(self, features: Tensor) -> Tensor:
        """Encode `features` [B, T, C] to codes [B, T', n_codebooks]."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Decode `codes` [B, T', n_codebooks] to features [B, T, C]."""

    @abstractmethod
    def frame_encoder(self, search: SearchMethod) -> FrameEncoder:
        """Return a fast `encode` for frozen weights.

        Args:
            search: how to search a codebook.
        """

    @abstractmethod
    def distances(self, features: Tensor, codes: Tensor) -> Tensor:
        """Relative quantization error after each code, norm(x - sum of codes) / norm(x).

        Args:
            features: [B, T', C] at the rate of the codes.
            codes: [B, T', n_codebooks]; the sum runs over a code and the codes before it in its group.

        Returns:
            [B, T', n_codebooks]
        """

    @property
    @abstractmethod
    def codebooks(self) -> Tensor:
        """Code vectors of all codebooks [n_codebooks, codebook_size, codebook_dim]."""

    def measure_diversity(self) -> None:
        """Compute a `diversity_loss` in every training pass.

        Raises:
            ConfigError: this quantizer has no learned codebooks.
        """
        raise ConfigError("loss.diversity needs a quantizer with learned codebooks; remove it, or use grvq or simvq.")

    def prepare_for_training(self) -> None:
        """Add state that only training needs, such as codebook statistics; nothing by default."""

    def initialize_codebooks(self, features: Tensor, seed: int) -> None:
        """Initialize the codebooks from encoder outputs [B, T, C], equal on every rank; nothing by default."""

    def learn(self, features: Tensor, codes: Tensor, counts: Tensor) -> None:
        """Update codebooks that learn without gradients, equally on all ranks; nothing by default.

        Args:
            features: [n, C], quantized on this rank.
            codes: [n, n_codebooks], codes of `features`.
            counts: int64 [n_codebooks, codebook_size], occurrences of each code on all ranks.
        """

    def replace_unused(self, counts: Tensor, n_tokens: int) -> Tensor:
        """Replace codes that are hardly used; none by default.

        Args:
            counts: int64 [n_codebooks, codebook_size], occurrences of each code in a usage window, see `usage`.
            n_tokens: number of tokens in the window.

        Returns:
            bool in the shape of `counts`, True for replaced codes.
        """
        return torch.zeros_like(counts, dtype=torch.bool)
