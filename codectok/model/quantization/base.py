"""What every quantizer offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

FrameEncoder = Callable[[Tensor], Tensor]
"""Codes [n, n_codebooks] of features float32 [n, C], each row by itself."""


@dataclass
class QuantizerOutput:
    """Result of a quantizer in training.

    Attributes:
        features: quantized features [B, T, C], with the straight-through gradient.
        codes: [B, T', n_codebooks] int64.
        commitment_loss: scalar, unweighted; zero where a quantizer needs none.
        metrics: scalars to log, whatever the quantizer wants to show.
    """

    features: Tensor
    codes: Tensor
    commitment_loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Quantizer(nn.Module, ABC):
    """Maps features [B, T, C] to codes [B, T', n_codebooks] and codes to features."""

    @abstractmethod
    def forward(self, features: Tensor) -> QuantizerOutput:
        """Quantize with gradients; in training mode a quantizer may adapt its codebooks."""

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

    def prepare_for_training(self) -> None:
        """Add what only training needs (such as codebook statistics); nothing by default."""

    def initialize_codebooks(self, features: Tensor) -> None:
        """Start the codebooks from encoder outputs [B, T, C]; nothing by default."""
