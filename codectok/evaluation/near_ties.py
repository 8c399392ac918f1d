"""Codes that differ because two were equally near: what another device's rounding may change, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from codectok.codec import Codec
from codectok.config import VectorQuantizerConfig
from codectok.device import Precision, inference

# Twice what features differ by between devices, as a share of their length.
NEAR_TIE: Mapping[Precision, float] = {"float32": 2e-4, "tf32": 5e-3, "bfloat16": 2e-2}


def are_near_ties(
    codec: Codec, precision: Precision, features: np.ndarray, codes: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """Whether in each frame `codes` are as near as `others`, which `codec` has just found, to within rounding.

    The first code of a group that differs decides: those behind it stand for what it leaves over.

    Args:
        codec: that found `others`.
        precision: in which `codes` were found; the looser of it and that of `codec` decides.
        features: what is quantized, float32 [n_frames, C].
        codes, others: [n_frames, n_codebooks].

    Returns:
        bool [n_frames]
    """
    rows = torch.from_numpy(features).to(codec.device)[None]
    with inference(codec.device, tf32=False, autocast=False):
        distances = [
            codec.network.quantizer.distances(rows, torch.from_numpy(each).to(codec.device)[None])[0].cpu().numpy()
            for each in (codes, others)
        ]
    config = codec.config.quantizer
    n_groups = config.n_groups if isinstance(config, VectorQuantizerConfig) else 1
    differ = (codes != others).reshape(len(codes), n_groups, -1)
    first = differ & (differ.cumsum(axis=-1) == 1)
    farther = (distances[0] - distances[1]).reshape(differ.shape)
    return ~(first & (farther > max(NEAR_TIE[codec.dtype], NEAR_TIE[precision]))).any(axis=(1, 2))
