"""Learned changes of the frame rate around a quantizer."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...precision import no_autocast
from ..convnext import ConvNeXtBlock, truncated_normal_linear
from .base import FrameEncoder, Quantizer, QuantizerOutput

# Of the blocks behind each change of the frame rate.
BLOCK_KERNEL_SIZE = 7


class Downsample(nn.Module):
    """Joins `factor` frames into one by a linear layer, then a ConvNeXt block; a remainder of frames is dropped."""

    def __init__(self, dim: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.linear = truncated_normal_linear(factor * dim, dim)
        self.block = ConvNeXtBlock(dim, BLOCK_KERNEL_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, C] to [B, T // factor, C]."""
        return self.block(self.join(x))

    def join(self, x: Tensor) -> Tensor:
        """The linear layer alone: map [..., T, C] to [..., T // factor, C]."""
        *batch, frames, dim = x.shape
        frames //= self.factor
        return self.linear(x[..., : frames * self.factor, :].reshape(*batch, frames, self.factor * dim))


class Upsample(nn.Module):
    """Splits a frame into `factor` frames by a linear layer with a bias shared among them, then a ConvNeXt block."""

    def __init__(self, dim: int, factor: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(factor * dim)
        self.weight = nn.Parameter(torch.empty(factor * dim, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.block = ConvNeXtBlock(dim, BLOCK_KERNEL_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, C] to [B, T * factor, C]."""
        batch, _, dim = x.shape
        return self.block(F.linear(x, self.weight).reshape(batch, -1, dim) + self.bias)


class TemporalQuantizer(Quantizer):
    """A quantizer at a lower frame rate: downsampling before it, upsampling after it.

    The inner quantizer always works in float32: in half precision many codes would change.
    """

    def __init__(self, inner: Quantizer, dim: int, time_factors: tuple[int, ...]) -> None:
        super().__init__()
        self.inner = inner
        self.downsample = nn.Sequential(*[Downsample(dim, factor) for factor in time_factors])
        self.upsample = nn.Sequential(*[Upsample(dim, factor) for factor in reversed(time_factors)])

    def forward(self, features: Tensor) -> QuantizerOutput:
        """Quantize `features` [B, T, C]; the result has T' * product of the time factors frames."""
        downsampled = self.downsample(features)
        with no_autocast(downsampled):
            output = self.inner(downsampled.float())
        output.features = self.upsample(output.features)
        return output

    def encode(self, features: Tensor) -> Tensor:
        """Codes [B, T', n_codebooks] of `features` [B, T, C]."""
        downsampled = self.downsample(features)
        with no_autocast(downsampled):
            return self.inner.encode(downsampled.float())

    def decode(self, codes: Tensor) -> Tensor:
        """Features [B, T, C] of `codes` [B, T', n_codebooks]."""
        return self.upsample(self.inner.decode(codes))

    def distances(self, features: Tensor, codes: Tensor) -> Tensor:
        """Those of the inner quantizer: it takes downsampled features."""
        return self.inner.distances(features, codes)

    def frame_encoder(self, reduced: bool) -> FrameEncoder:
        """That of the inner quantizer: it takes downsampled features."""
        return self.inner.frame_encoder(reduced)

    @property
    def codebooks(self) -> Tensor:
        """Code vectors of the inner quantizer."""
        return self.inner.codebooks

    def prepare_for_training(self) -> None:
        """Prepare the inner quantizer."""
        self.inner.prepare_for_training()

    def initialize_codebooks(self, features: Tensor) -> None:
        """Start the inner quantizer's codebooks from downsampled `features` [B, T, C]."""
        with torch.no_grad():
            self.inner.initialize_codebooks(self.downsample(features))
