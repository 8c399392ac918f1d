"""What every quantizer offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codectok.errors import ConfigError

FrameEncoder = Callable[[Tensor], Tensor]
"""Codes [n, n_codebooks] of features float32 [n, C], each row by itself."""


@dataclass
class QuantizerOutput:
    """Result of a quantizer in training.

    Attributes:
        features: quantized features [B, T, C], with the straight-through gradient.
        codes: [B, T', n_codebooks] int64.
        commitment_loss: scalar, unweighted; zero where a quantizer needs none.
        diversity_loss: scalar, unweighted, where it was asked for; see `diversity`.
    """

    features: Tensor
    codes: Tensor
    commitment_loss: Tensor
    diversity_loss: Tensor | None = None


class Quantizer(nn.Module, ABC):
    """Maps features [B, T, C] to codes [B, T', n_codebooks] and codes to features."""

    @abstractmethod
    def forward(self, features: Tensor) -> QuantizerOutput:
        """Quantize with gradients."""

    @abstractmethod
    def encode(self, features: Tensor) -> Tensor:
        """Codes [B, T', n_codebooks] of `features` [B, T, C]."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Features [B, T, C] of `codes` [B, T', n_codebooks]."""

    @abstractmethod
    def frame_encoder(self, reduced: bool) -> FrameEncoder:
        """The fastest `encode` for weights that stay as they are; `reduced` lets it search in bfloat16 first."""

    @abstractmethod
    def distances(self, features: Tensor, codes: Tensor) -> Tensor:
        """How far each code lies from what it stands for, as a share of the length of what was quantized.

        Args:
            features: [B, T', C] at the rate of the codes.
            codes: [B, T', n_codebooks], of which each is judged by what those before it leave over.

        Returns:
            [B, T', n_codebooks]
        """

    @property
    @abstractmethod
    def codebooks(self) -> Tensor:
        """All code vectors [n_codebooks, codebook_size, codebook_dim]."""

    def measure_diversity(self) -> None:
        """Let every training pass give a `diversity_loss`.

        Raises:
            ConfigError: this kind of quantizer has none.
        """
        raise ConfigError("loss.diversity is for codebooks: a quantizer without them has its codes by construction.")

    def prepare_for_training(self) -> None:
        """Add what only training needs (such as codebook statistics); nothing by default."""

    def initialize_codebooks(self, features: Tensor, seed: int) -> None:
        """Start the codebooks from encoder outputs [B, T, C], the same on every rank; nothing by default."""

    def learn(self, features: Tensor, codes: Tensor, counts: Tensor) -> None:
        """Adapt codebooks that learn without gradients, on all ranks alike; nothing by default.

        Args:
            features: [n, C], what this rank has quantized.
            codes: [n, n_codebooks] of them.
            counts: int64 [n_codebooks, codebook_size], how often each code came up on all ranks.
        """

    def replace_unused(self, counts: Tensor, n_tokens: int) -> Tensor:
        """Replace codes that `n_tokens` tokens have hardly used; none by default.

        Args:
            counts: int64 [n_codebooks, codebook_size], how often each code came up among them.
            n_tokens: long enough a time to judge by, see `usage`.

        Returns:
            Which codes were replaced, in the shape of `counts`.
        """
        return torch.zeros_like(counts, dtype=torch.bool)
