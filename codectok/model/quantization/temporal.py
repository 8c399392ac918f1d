"""Downsampling before a quantizer and upsampling after it; the place where codebooks are updated in training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codectok.config import QuantizerConfig
from codectok.device import no_autocast
from codectok.model.convnext import ConvNeXtBlock, truncated_normal_linear

from .base import FrameEncoder, Quantizer, QuantizerOutput
from .distributed import n_ranks, sum_over_ranks
from .scatter import occurrences
from .search import SearchMethod
from .usage import UsageWindow

# Kernel size of the ConvNeXt block after each change of the frame rate.
BLOCK_KERNEL_SIZE = 7


class Downsample(nn.Module):
    """Joins every `factor` frames by a linear layer, followed by a ConvNeXt block; leftover frames are dropped."""

    def __init__(self, dim: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.linear = truncated_normal_linear(factor * dim, dim)
        self.block = ConvNeXtBlock(dim, BLOCK_KERNEL_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, C] to [B, T // factor, C]."""
        downsampled: Tensor = self.block(self.join(x))
        return downsampled

    def join(self, x: Tensor) -> Tensor:
        """Apply the linear layer only: map [..., T, C] to [..., T // factor, C]."""
        *batch, frames, dim = x.shape
        frames //= self.factor
        joined: Tensor = self.linear(x[..., : frames * self.factor, :].reshape(*batch, frames, self.factor * dim))
        return joined


class Upsample(nn.Module):
    """Splits a frame into `factor` frames by a linear layer with one bias for all of them, then a ConvNeXt block."""

    def __init__(self, dim: int, factor: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(factor * dim)
        self.weight = nn.Parameter(torch.empty(factor * dim, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.block = ConvNeXtBlock(dim, BLOCK_KERNEL_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, C] to [B, T * factor, C]."""
        batch, _, dim = x.shape
        upsampled: Tensor = self.block(F.linear(x, self.weight).reshape(batch, -1, dim) + self.bias)
        return upsampled


@dataclass
class QuantizedFrames:
    """Frames of a forward pass, from which the codebooks learn.

    Attributes:
        features: float32 [n, C], downsampled, without gradient.
        codes: int64 [n, n_codebooks].
    """

    features: Tensor
    codes: Tensor


@dataclass(kw_only=True)
class TemporalQuantizerOutput(QuantizerOutput):
    """Result of a temporal quantizer in training.

    Attributes:
        frames: the frames that were quantized, for `TemporalQuantizer.update_codebooks`.
    """

    frames: QuantizedFrames


class TemporalQuantizer(Quantizer):
    """Runs a quantizer at a lower frame rate: downsampling before it, upsampling after it.

    The inner quantizer works in float32, as many codes would differ in half precision. It learns at the lower rate, in
    `update_codebooks`.
    """

    def __init__(self, inner: Quantizer, dim: int, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.inner = inner
        self.downsample = nn.Sequential(*[Downsample(dim, factor) for factor in config.time_factors])
        self.upsample = nn.Sequential(*[Upsample(dim, factor) for factor in reversed(config.time_factors)])
        self.usage: UsageWindow | None = None

    def forward(self, features: Tensor) -> TemporalQuantizerOutput:
        """Quantize `features` [B, T, C]; the result has T' * product of the time factors frames."""
        downsampled = self.downsample(features).float()
        with no_autocast(downsampled):
            output: QuantizerOutput = self.inner(downsampled)
        return TemporalQuantizerOutput(
            features=self.upsample(output.features),
            codes=output.codes,
            commitment_loss=output.commitment_loss,
            diversity_loss=output.diversity_loss,
            frames=QuantizedFrames(downsampled.detach().flatten(0, 1), output.codes.flatten(0, 1)),
        )

    def encode(self, features: Tensor) -> Tensor:
        """Codes [B, T', n_codebooks] of `features` [B, T, C]."""
        downsampled = self.downsample(features)
        with no_autocast(downsampled):
            return self.inner.encode(downsampled.float())

    def decode(self, codes: Tensor) -> Tensor:
        """Features [B, T, C] of `codes` [B, T', n_codebooks]."""
        features: Tensor = self.upsample(self.inner.decode(codes))
        return features

    def distances(self, features: Tensor, codes: Tensor) -> Tensor:
        """Distances of the inner quantizer for downsampled `features`."""
        return self.inner.distances(features, codes)

    def frame_encoder(self, search: SearchMethod) -> FrameEncoder:
        """Frame encoder of the inner quantizer, for downsampled features."""
        return self.inner.frame_encoder(search)

    @property
    def codebooks(self) -> Tensor:
        """Code vectors of the inner quantizer."""
        return self.inner.codebooks

    def measure_diversity(self) -> None:
        """Add a diversity loss to the output of the inner quantizer."""
        self.inner.measure_diversity()

    def prepare_for_training(self) -> None:
        """Prepare the inner quantizer and start counting the use of its codes."""
        self.inner.prepare_for_training()
        device = next(itertools.chain(self.parameters(), self.buffers())).device
        self.usage = UsageWindow(self.config.n_codebooks, self.config.codebook_size).to(device)

    @torch.no_grad()
    def initialize_codebooks(self, features: Tensor, seed: int = 0) -> None:
        """Initialize the codebooks from `features` [B, T, C] before downsampling; all ranks pass the same features."""
        downsampled = self.downsample(features)
        with no_autocast(downsampled):
            self.inner.initialize_codebooks(downsampled.float(), seed)

    @torch.no_grad()
    def update_codebooks(self, passes: Sequence[QuantizedFrames]) -> None:
        """Update the codebooks from the forward passes of one training step, on all ranks together.

        Call it once per optimizer step and before the optimizer changes the weights, on every rank with the same number
        of tokens. In evaluation mode it only counts the use of codes. It never waits for a GPU.

        Args:
            passes: frames of the step's microbatches, in order.

        Raises:
            RuntimeError: `prepare_for_training` has not been called.
        """
        usage = self._usage_in_training()
        features = torch.cat([frames.features for frames in passes])
        codes = torch.cat([frames.codes for frames in passes])
        n_tokens = n_ranks() * len(codes)
        counts = torch.stack([occurrences(column, self.config.codebook_size) for column in codes.unbind(1)])
        sum_over_ranks(counts)
        with no_autocast(features):
            if self.training:
                self.inner.learn(features, codes, counts)
            if usage.add(counts, n_tokens) and self.training:
                replaced = self.inner.replace_unused(usage.last_counts, usage.last_tokens)
                usage.expired_share.copy_(replaced.float().mean())

    def codebook_metrics(self) -> dict[str, Tensor]:
        """Scalars about the use of codes in training, see `UsageWindow.metrics`.

        Raises:
            RuntimeError: `prepare_for_training` has not been called.
        """
        return self._usage_in_training().metrics()

    def _usage_in_training(self) -> UsageWindow:
        if self.usage is None:
            raise RuntimeError("Call prepare_for_training before the quantizer is trained.")
        return self.usage
