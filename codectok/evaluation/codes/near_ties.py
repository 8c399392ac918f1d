"""Near ties: codes that differ between devices because two code vectors are equally near to within rounding."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from codectok.choices import Precision
from codectok.codec import Codec
from codectok.config import VectorQuantizerConfig
from codectok.device import inference

# Twice the relative difference of features between devices.
NEAR_TIE: Mapping[Precision, float] = {"float32": 2e-4, "tf32": 5e-3, "bfloat16": 2e-2}


def are_near_ties(
    codec: Codec, precision: Precision, features: np.ndarray, codes: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """Compare two encodings of the same frames: are `codes` as near to the features as `others`, to within rounding?

    In each group the first code that differs decides: later codes quantize its residual.

    Args:
        codec: codec that computed `others`.
        precision: arithmetic of `codes`; the looser tolerance of it and of `codec` applies.
        features: quantizer input, float32 [n_frames, C].
        codes, others: [n_frames, n_codebooks].

    Returns:
        bool [n_frames], True for frames that are equal or near ties.
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
    tolerance = max(NEAR_TIE[codec.dtype], NEAR_TIE[precision])
    wrong: np.ndarray = (first & (farther > tolerance)).any(axis=(1, 2))
    return ~wrong
