"""Learned changes of the frame rate around a quantizer."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codectok.config import QuantizerConfig
from codectok.device import no_autocast
from codectok.model.convnext import ConvNeXtBlock, truncated_normal_linear

from .base import FrameEncoder, Quantizer, QuantizerOutput
from .distributed import n_ranks, sum_over_ranks
from .scatter import occurrences
from .usage import UsageWindow

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

    The inner quantizer always works in float32: in half precision many codes would change. It learns at the lower rate,
    once for all training passes between two calls of `update_codebooks`.
    """

    def __init__(self, inner: Quantizer, dim: int, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.inner = inner
        self.downsample = nn.Sequential(*[Downsample(dim, factor) for factor in config.time_factors])
        self.upsample = nn.Sequential(*[Upsample(dim, factor) for factor in reversed(config.time_factors)])
        self.usage: UsageWindow | None = None
        self._passes: list[tuple[Tensor, Tensor]] = []

    def forward(self, features: Tensor) -> QuantizerOutput:
        """Quantize `features` [B, T, C]; the result has T' * product of the time factors frames."""
        downsampled = self.downsample(features)
        with no_autocast(downsampled):
            output = self.inner(downsampled.float())
        # A pass without gradients only looks ahead.
        if self.training and torch.is_grad_enabled() and self.usage is not None:
            self._passes.append((downsampled.detach().float().flatten(0, 1), output.codes.flatten(0, 1)))
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

    def measure_diversity(self) -> None:
        """Let the inner quantizer measure it."""
        self.inner.measure_diversity()

    def prepare_for_training(self) -> None:
        """Prepare the inner quantizer, and count from now on how its codes are used."""
        self.inner.prepare_for_training()
        device = next(itertools.chain(self.parameters(), self.buffers())).device
        self.usage = UsageWindow(self.config.n_codebooks, self.config.codebook_size).to(device)

    @torch.no_grad()
    def initialize_codebooks(self, features: Tensor, seed: int = 0) -> None:
        """Start the inner quantizer's codebooks from downsampled `features` [B, T, C], the same on every rank."""
        downsampled = self.downsample(features)
        with no_autocast(downsampled):
            self.inner.initialize_codebooks(downsampled.float(), seed)

    @torch.no_grad()
    def update_codebooks(self) -> None:
        """Let the inner quantizer learn from the training passes since the last call, those of all ranks together.

        To be called once for each step of the optimizer and before it, while the weights are those of the passes, and
        by every rank with as many tokens. Nothing here waits for a GPU.
        """
        if self.usage is None or not self._passes:
            return
        features, codes = (torch.cat(parts) for parts in zip(*self._passes, strict=True))
        self._passes.clear()
        n_tokens = n_ranks() * len(codes)
        counts = torch.stack([occurrences(column, self.config.codebook_size) for column in codes.unbind(1)])
        sum_over_ranks(counts)
        with no_autocast(features):
            self.inner.learn(features, codes, counts)
            if self.usage.add(counts, n_tokens):
                replaced = self.inner.replace_unused(self.usage.last_counts, self.usage.last_tokens)
                self.usage.expired_share.copy_(replaced.float().mean())

    def codebook_metrics(self) -> dict[str, Tensor]:
        """Scalars about the use of the codes in training, see `UsageWindow.metrics`."""
        assert self.usage is not None, "prepare_for_training comes first"
        return self.usage.metrics()
