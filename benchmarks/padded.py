"""Baseline encoder: batches padded to the longest clip, and the distances to all codes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from codectok import Codec
from codectok.config import FiniteScalarQuantizerConfig
from codectok.device import inference
from codectok.model.quantization.residual import ResidualQuantizer

PADDED_BATCH = 8
# Number of frames whose distances are computed at once, the size of a batch of 10 s clips; longer files are sliced.
DISTANCE_ROWS = 7500


def padded_baseline(codec: Codec, clips: list[np.ndarray]) -> list[Tensor]:
    """Encode each clip to codes [n_frames, n_codebooks], in batches padded to the longest clip."""
    config, found = codec.config, []
    for first in range(0, len(clips), PADDED_BATCH):
        batch = clips[first : first + PADDED_BATCH]
        longest = max(config.left_pad + max(len(clip), config.min_samples) for clip in batch)
        samples = torch.zeros(len(batch), longest)
        for row, clip in zip(samples, batch, strict=True):
            row[config.left_pad : config.left_pad + len(clip)] = torch.from_numpy(clip)
        with inference(codec.device, tf32=False, autocast=False):
            features = codec.network.encoder(codec.log_mel(samples.to(codec.device)))
            features = codec.network.quantizer.downsample(features)
            codes = codes_by_definition(codec, features).cpu()
        found += [row[: config.n_frames(len(clip))] for row, clip in zip(codes, batch, strict=True)]
    return found


def codes_by_definition(codec: Codec, features: Tensor) -> Tensor:
    """Quantize `features` [B, T, C] to codes [B, T, n_codebooks]: argmin |W x + b - e|^2 in every layer."""
    quantizer = codec.network.quantizer.inner
    if isinstance(codec.config.quantizer, FiniteScalarQuantizerConfig):
        return quantizer.encode(features)
    codes = []
    for group, part in zip(quantizer.groups, features.chunk(len(quantizer.groups), dim=-1), strict=True):
        assert isinstance(group, ResidualQuantizer)
        residual = group.project_in(part).flatten(0, 1)
        for layer in group.layers:
            book = layer.embedding
            codes.append(torch.cat([nearest(rows, book) for rows in residual.split(DISTANCE_ROWS)]))
            residual = residual - book[codes[-1]]
    return torch.stack(codes, -1).view(*features.shape[:2], -1)


def nearest(rows: Tensor, book: Tensor) -> Tensor:
    """Find the row of `book` with the least |x|^2 - 2 x . e + |e|^2 to each of `rows`; indices [n]."""
    return (rows.square().sum(1, keepdim=True) - 2 * rows @ book.T + book.square().sum(1)).argmin(1)
