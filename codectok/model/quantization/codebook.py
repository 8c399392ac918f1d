"""One codebook: nearest-neighbour search, and learning by exponential moving averages."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SEARCH_ROWS = 1024
EPSILON = 1e-5
# A code used less than this share of uniform use is replaced: its average would fade to the zero vector.
EXPIRY_SHARE = 0.05


class Codebook(nn.Module):
    """Code vectors with a nearest-neighbour search.

    Buffers: `embedding` [codebook_size, codebook_dim]. After `prepare_for_training` also the moving averages
    `ema_count` [codebook_size] (vectors per step) and `ema_sum` [codebook_size, codebook_dim] of assigned vectors.
    """

    embedding: Tensor
    ema_count: Tensor
    ema_sum: Tensor

    def __init__(self, codebook_size: int, codebook_dim: int, ema_decay: float) -> None:
        super().__init__()
        self.ema_decay = ema_decay
        bound = math.sqrt(6 / (codebook_size * codebook_dim))
        self.register_buffer("embedding", torch.empty(codebook_size, codebook_dim).uniform_(-bound, bound))

    def prepare_for_training(self) -> None:
        """Add the moving averages, as if every code had been assigned its own vector once."""
        self.register_buffer("ema_count", self.embedding.new_ones(len(self.embedding)))
        self.register_buffer("ema_sum", self.embedding.clone())

    def initialize(self, vectors: Tensor) -> None:
        """Place the codes on random rows of `vectors` [n, codebook_dim]."""
        n_codes = len(self.embedding)
        rows = torch.randperm(len(vectors), device=vectors.device).repeat(math.ceil(n_codes / len(vectors)))
        self.embedding.copy_(vectors[rows[:n_codes]])
        self.ema_count.fill_(1)
        self.ema_sum.copy_(self.embedding)

    def search(self, vectors: Tensor) -> Tensor:
        """Index [n] of the nearest code to each of `vectors` [n, codebook_dim]; ties go to the lowest index."""
        embedding, half_norms = self.embedding, self.half_squared_norms()
        # |x - e|^2 is smallest where x . e - |e|^2 / 2 is largest; in slices, since a row needs codebook_size floats.
        slices = vectors.split(SEARCH_ROWS)
        return torch.cat([(rows @ embedding.T - half_norms).argmax(1) for rows in slices])

    def half_squared_norms(self) -> Tensor:
        """Half the squared length [codebook_size] of every code vector."""
        return torch.linalg.vector_norm(self.embedding, dim=1).square() / 2

    def lookup(self, codes: Tensor) -> Tensor:
        """Code vectors [..., codebook_dim] of `codes` [...]."""
        return F.embedding(codes, self.embedding)

    @torch.no_grad()
    def update(self, vectors: Tensor, codes: Tensor) -> Tensor:
        """Move the codes towards `vectors` [n, codebook_dim] assigned to them by `codes` [n].

        Returns:
            How many unused codes were replaced by random rows of `vectors` (scalar).
        """
        count = torch.bincount(codes, minlength=len(self.ema_count)).to(vectors.dtype)
        total = torch.zeros_like(self.ema_sum).index_add_(0, codes, vectors)
        self.ema_count.lerp_(count, 1 - self.ema_decay)
        self.ema_sum.lerp_(total, 1 - self.ema_decay)
        expired = self._replace_unused(vectors)
        # Laplace smoothing keeps the mean of a rarely used code finite.
        mass = self.ema_count.sum()
        smoothed = (self.ema_count + EPSILON) / (mass + len(self.ema_count) * EPSILON) * mass
        self.embedding.copy_(self.ema_sum / smoothed.unsqueeze(1))
        return expired

    def _replace_unused(self, vectors: Tensor) -> Tensor:
        uniform_use = self.ema_count.mean()
        expired = self.ema_count < EXPIRY_SHARE * uniform_use
        rows = torch.randint(len(vectors), (len(expired),), device=vectors.device)
        # Count and sum are set together: a new vector without them would be averaged away in this very step.
        self.ema_count.copy_(torch.where(expired, uniform_use, self.ema_count))
        self.ema_sum.copy_(torch.where(expired.unsqueeze(1), vectors[rows] * uniform_use, self.ema_sum))
        return expired.sum()
