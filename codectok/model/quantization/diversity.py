"""A loss that is small where codes are equally used, with gradients for the features that are quantized."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Keeps the slope of the entropy finite at codes that nobody comes near.
SMALLEST_SHARE = 1e-12


def diversity_loss(vectors: Tensor, embedding: Tensor) -> Tensor:
    """How far the use of codes is from even: 0 where all are used alike, 1 where one is used for everything.

    The use is soft: every vector has a share in every code, by their squared distance in units of what vectors have on
    average to the nearest code. Entropy is that of the mean of shares over all vectors.

    Args:
        vectors: [n, D], what is quantized.
        embedding: code vectors [codebook_size, D].
    """
    distances = vectors.square().sum(1, keepdim=True) - 2 * vectors @ embedding.T + embedding.square().sum(1)
    scale = distances.detach().amin(1).clamp(min=0).mean().clamp(min=torch.finfo(distances.dtype).tiny)
    shares = torch.softmax(-distances / scale, dim=1).mean(0)
    entropy = -(shares * shares.clamp(min=SMALLEST_SHARE).log()).sum()
    return 1 - entropy / math.log(len(embedding))
