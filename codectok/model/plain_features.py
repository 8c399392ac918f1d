"""Computes the features of packs by operations of torch, on a CPU and on a GPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codectok.choices import Precision
from codectok.device import float32_products
from codectok.model.quantization.temporal import BLOCK_KERNEL_SIZE, Downsample

from .convnext import ConvNeXtBlock
from .network import CodecNetwork
from .packing import PackGeometry

Module = TypeVar("Module", bound=nn.Module)
Layer = Callable[[Tensor], Tensor]
PackFeatures = Callable[..., Tensor]
"""Maps samples float32 [n] and gaps bool [frames] for each level to features float32 [code frames, C]."""


def frame_margin(geometry: PackGeometry) -> int:
    """Zero frames at both ends of a pack that the widest convolution needs."""
    return max(geometry.config.encoder.kernel_size, BLOCK_KERNEL_SIZE) // 2


class PlainFeatures:
    """Computes features block by block, see `codectok.model.packed_encoder.PackedEncoder`.

    Args:
        network: network in inference mode.
        log_mel: maps windows of samples [T, window] to log-mel frames [T, n_mels].
        geometry: geometry of the packs.
        dtype: "bfloat16" computes the two products of every block in bfloat16.
        block_rows: frames of a block.
    """

    def __init__(
        self, network: CodecNetwork, log_mel: Layer, geometry: PackGeometry, dtype: Precision, block_rows: int
    ) -> None:
        self._geometry = geometry
        self._log_mel = log_mel
        self._encoder = in_precision(network.encoder, dtype)
        self._downsamples = cast("Iterable[Downsample]", in_precision(network.quantizer.downsample, dtype))
        self._margin = frame_margin(geometry)
        self._block_rows = block_rows

    def __call__(self, samples: Tensor, *gaps: Tensor) -> Tensor:
        """Return features before quantization, float32 [code frames, C]."""
        encoder, margin = self._encoder, self._margin
        padded = F.pad(samples, (margin * self._geometry.hop, margin * self._geometry.hop))
        with float32_products():
            x = self._apply(self._log_mel, padded.unfold(0, self._geometry.window, self._geometry.hop), gaps[0])
        x = self._apply(
            lambda rows: encoder.stem_norm(encoder.stem.valid(rows)), x, gaps[0], encoder.stem.receptive_field
        )
        for transition, stage in zip([None, *encoder.transitions], encoder.stages, strict=True):
            if transition is not None:
                x = self._apply(transition, x, gaps[0])
            x = self._apply_blocks(stage, x, gaps[0])
        x = self._apply(encoder.norm, x, gaps[0])
        for downsample, gap in zip(self._downsamples, gaps[1:], strict=True):
            x = self._apply(downsample.join, x, gap, factor=downsample.factor)
            x = self._apply_blocks([downsample.block], x, gap)
        return x[margin:-margin]

    def _apply_blocks(self, blocks: nn.Module | Sequence[nn.Module], x: Tensor, gap: Tensor) -> Tensor:
        spare: Tensor | None = None
        for block in cast("Iterable[ConvNeXtBlock]", blocks):
            # Alternate between two buffers: new memory is slow at first touch.
            x, spare = self._apply(block.valid, x, gap, block.depthwise.receptive_field, into=spare), x
        return x

    def _apply(
        self, layer: Layer, x: Tensor, gap: Tensor, overlap: int = 0, factor: int = 1, into: Tensor | None = None
    ) -> Tensor:
        """Apply `layer` block by block, and set the frames in gaps to zero.

        `layer` maps `overlap` + n * `factor` + `overlap` rows to n. `x` and the result have a margin of zero rows at
        both ends, the zero padding of the first and the last frame. The result is written to `into` if given.
        """
        frames, margin = len(gap), self._margin
        rows = min(self._block_rows, frames)
        for start in range(0, frames, rows):
            first = margin + start * factor
            block = layer(x[first - overlap : first + rows * factor + overlap])
            if into is None:
                into = block.new_empty(frames + 2 * margin, block.shape[1])
                into[:margin] = into[-margin:] = 0
            part = into[margin + start : margin + start + rows]
            torch.where(gap[start : start + rows].unsqueeze(1), block.new_zeros(()), block, out=part)
        assert into is not None, "a pack has at least one block of rows"
        return into


def in_precision(module: Module, dtype: Precision) -> Module:
    """Return `module`, or a copy whose ConvNeXt blocks compute their products in bfloat16."""
    if dtype != "bfloat16":
        return module
    module = copy.deepcopy(module)
    for block in module.modules():
        if isinstance(block, ConvNeXtBlock):
            block.expand.bfloat16()
            block.contract.bfloat16()
    return module
