"""Computes the features of packs on a GPU by few, fused kernels, with the products of the blocks in bfloat16."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from codectok.device import float32_products
from codectok.model.kernels.frames import (
    FusedBlock,
    SplitLinear,
    layer_norm,
    layer_norm_terms,
    split_terms,
    with_margin,
)
from codectok.model.quantization.temporal import Downsample

from .convnext import ConvNeXtBlock
from .network import CodecNetwork
from .packing import PackGeometry
from .plain_features import Layer, frame_margin, in_precision


class FusedFeatures:
    """Computes features like `codectok.model.plain_features.PlainFeatures` in bfloat16.

    Products outside the blocks have float32 factors; each is computed as the sum of three products in bfloat16.

    Args:
        network: network in inference mode, on a GPU; later changes of its weights are not seen.
        log_mel: maps windows of samples [T, window] to log-mel frames [T, n_mels].
        geometry: geometry of the packs.
    """

    def __init__(self, network: CodecNetwork, log_mel: Layer, geometry: PackGeometry) -> None:
        self._geometry = geometry
        self._log_mel = log_mel
        self._margin = frame_margin(geometry)
        encoder = in_precision(network.encoder, "bfloat16")
        stem = encoder.stem
        self._stem = SplitLinear(stem.weight.flatten(1), stem.bias)
        self._stem_side, self._kernel_size = stem.receptive_field, stem.weight.shape[2]
        self._stem_norm, self._norm = encoder.stem_norm, encoder.norm
        self._stages = [_fused(stage) for stage in encoder.stages]
        self._transitions = [_norm_and_linear(cast("nn.Sequential", layers)) for layers in encoder.transitions]
        downsamples = cast("Iterable[Downsample]", in_precision(network.quantizer.downsample, "bfloat16"))
        self._downsamples = [
            (layer.factor, SplitLinear(layer.linear.weight, layer.linear.bias), FusedBlock(layer.block))
            for layer in downsamples
        ]

    def __call__(self, samples: Tensor, *gaps: Tensor) -> Tensor:
        """Return features before quantization, float32 [code frames, C], zero in gaps."""
        margin, gap = self._margin, gaps[0]
        x = self._stem_frames(samples, gap)
        for transition, stage in zip([None, *self._transitions], self._stages, strict=True):
            if transition is not None:
                norm, linear = transition
                x = linear(layer_norm_terms(x[margin:-margin], norm), gap, margin)
            for block in stage:
                block(x, gap, margin)
        features = x.new_empty(len(gap), x.shape[1])
        layer_norm(x[margin:-margin], self._norm, gap, features)
        for (factor, linear, block), level_gap in zip(self._downsamples, gaps[1:], strict=True):
            joined = features.view(len(level_gap), factor * features.shape[1])
            x = linear(split_terms(joined), level_gap, margin)
            block(x, level_gap, margin)
            features = x[margin:-margin]
        return features

    def _stem_frames(self, samples: Tensor, gap: Tensor) -> Tensor:
        """Return the output of the stem with its margin."""
        margin = self._margin
        with float32_products():
            log_mel = self._log_mel(samples.unfold(0, self._geometry.window, self._geometry.hop))
        log_mel = log_mel.masked_fill_(gap.unsqueeze(1), 0.0)
        windows = F.pad(log_mel, (0, 0, self._stem_side, self._stem_side)).unfold(0, self._kernel_size, 1).flatten(1)
        x = with_margin(len(gap), self._stem.out_channels, margin, log_mel)
        layer_norm(self._stem.product(split_terms(windows)), self._stem_norm, gap, x[margin:-margin], self._stem.bias)
        return x


def _norm_and_linear(transition: nn.Sequential) -> tuple[nn.LayerNorm, SplitLinear]:
    norm, linear = cast("tuple[nn.LayerNorm, nn.Linear]", tuple(transition))
    return norm, SplitLinear(linear.weight, linear.bias)


def _fused(stage: nn.Module) -> list[FusedBlock]:
    return [FusedBlock(block) for block in cast("Iterable[ConvNeXtBlock]", stage)]
