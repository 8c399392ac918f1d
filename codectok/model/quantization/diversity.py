"""Diversity loss: rewards equal use of the codes, with gradients for the quantized features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Keeps the gradient of the entropy finite for codes that are far from all vectors.
SMALLEST_SHARE = 1e-12


def diversity_loss(vectors: Tensor, embedding: Tensor) -> Tensor:
    """Return 1 - entropy / log(codebook_size) of soft code use: 0 for equal use, 1 if one code takes all.

    Soft use is the mean over all vectors of a softmax over codes of -distance / scale, with squared distances, and the
    mean squared distance to the nearest code as scale.

    Args:
        vectors: [n, D], before quantization.
        embedding: code vectors [codebook_size, D].
    """
    distances = vectors.square().sum(1, keepdim=True) - 2 * vectors @ embedding.T + embedding.square().sum(1)
    scale = distances.detach().amin(1).clamp(min=0).mean().clamp(min=torch.finfo(distances.dtype).tiny)
    shares = torch.softmax(-distances / scale, dim=1).mean(0)
    entropy = -(shares * shares.clamp(min=SMALLEST_SHARE).log()).sum()
    return 1 - entropy / math.log(len(embedding))
