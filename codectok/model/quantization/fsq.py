"""Finite scalar quantization (Mentzer et al. 2023, arXiv 2309.15505)."""

from __future__ import annotations

import itertools
import operator

import torch
from torch import Tensor

from codectok.config import FiniteScalarQuantizerConfig
from codectok.model.convnext import truncated_normal_linear

from .base import FrameEncoder, Quantizer, QuantizerOutput
from .search import SearchMethod

# Keeps bounded values strictly inside the outermost rounding boundary.
BOUND_MARGIN = 1e-3


class FiniteScalarQuantizer(Quantizer):
    """Rounds each of a few bounded channels to a fixed number of levels; the combination of levels is the code.

    Buffers (not saved):
        levels: [n_channels], number of levels of each channel.
        basis: [n_channels], weight of each channel's level in the code.
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, config: FiniteScalarQuantizerConfig, dim: int) -> None:
        super().__init__()
        # On the CPU even if the network is built on the meta device: checkpoints do not hold these constants.
        basis = list(itertools.accumulate(config.levels[:-1], operator.mul, initial=1))
        self.register_buffer("levels", torch.tensor(config.levels, device="cpu"), persistent=False)
        self.register_buffer("basis", torch.tensor(basis, device="cpu"), persistent=False)
        self.project_in = truncated_normal_linear(dim, len(config.levels))
        self.project_out = truncated_normal_linear(len(config.levels), dim)

    def forward(self, features: Tensor) -> QuantizerOutput:
        """Quantize `features` [B, T, C]; the gradient passes the rounding unchanged (straight-through)."""
        bounded = self._bound(self.project_in(features))
        rounded = bounded + (bounded.round() - bounded).detach()
        digits = self._digits(bounded)
        return QuantizerOutput(
            features=self.project_out(self._normalize(rounded)),
            codes=(digits * self.basis).sum(-1, keepdim=True),
            commitment_loss=bounded.new_zeros(()),
        )

    def encode(self, features: Tensor) -> Tensor:
        """Encode `features` [B, T, C] to codes [B, T, 1]."""
        digits = self._digits(self._bound(self.project_in(features)))
        return (digits * self.basis).sum(-1, keepdim=True)

    def decode(self, codes: Tensor) -> Tensor:
        """Decode `codes` [B, T, 1] to features [B, T, C]."""
        features: Tensor = self.project_out(self._vectors(codes))
        return features

    def distances(self, features: Tensor, codes: Tensor) -> Tensor:
        """Distance [B, T', 1] between the bounded channels and the levels of the code, over the largest level count."""
        bounded = self._bound(self.project_in(features))
        errors = bounded - (codes // self.basis % self.levels - self.levels // 2)
        distances: Tensor = torch.linalg.vector_norm(errors, dim=-1, keepdim=True)
        return distances / self.levels.max()

    def frame_encoder(self, search: SearchMethod) -> FrameEncoder:
        """Return `encode`, which needs no search."""
        return lambda rows: self.encode(rows.unsqueeze(0))[0]

    @property
    def codebooks(self) -> Tensor:
        """Code vectors [1, codebook_size, n_channels] in [-1, 1]."""
        n_codes = int(self.levels.prod())
        return self._vectors(torch.arange(n_codes, device=self.levels.device).unsqueeze(-1)).unsqueeze(0)

    def _bound(self, values: Tensor) -> Tensor:
        """Squash to an interval that rounds to exactly `levels` integers; an even number of them is off centre."""
        half_width = (self.levels - 1) * (1 + BOUND_MARGIN) / 2
        offset = (self.levels % 2 == 0) * 0.5
        shift = torch.atanh(offset / half_width)
        return torch.tanh(values + shift) * half_width - offset

    def _digits(self, bounded: Tensor) -> Tensor:
        return bounded.round().long() + self.levels // 2

    def _normalize(self, rounded: Tensor) -> Tensor:
        return rounded / (self.levels // 2)

    def _vectors(self, codes: Tensor) -> Tensor:
        digits = codes // self.basis % self.levels
        return self._normalize((digits - self.levels // 2).float())
