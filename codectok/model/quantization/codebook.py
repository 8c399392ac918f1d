"""Codebooks: nearest-neighbour search, and learning by exponential moving averages (EMA)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .k_means import k_means, nearest_codes
from .scatter import add_rows


class Codebook(nn.Module):
    """Code vectors with a nearest-neighbour search.

    Buffers: `embedding` [codebook_size, codebook_dim].
    """

    embedding: Tensor

    def __init__(self, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        bound = math.sqrt(6 / (codebook_size * codebook_dim))
        self.register_buffer("embedding", torch.empty(codebook_size, codebook_dim).uniform_(-bound, bound))

    def prepare_for_training(self) -> None:
        """Add state that only training needs; nothing by default."""

    def search(self, vectors: Tensor) -> Tensor:
        """Find the nearest code [n] to each of `vectors` [n, codebook_dim]; ties go to the lowest index."""
        return nearest_codes(vectors, self.embedding)

    def half_squared_norms(self) -> Tensor:
        """Half the squared norm [codebook_size] of every code vector."""
        norms: Tensor = torch.linalg.vector_norm(self.embedding, dim=1)
        return norms.square() / 2

    def lookup(self, codes: Tensor) -> Tensor:
        """Look up the code vectors [..., codebook_dim] of `codes` [...]."""
        return F.embedding(codes, self.embedding)

    def commitment_loss(self, vectors: Tensor, nearest: Tensor) -> Tensor:
        """Mean squared difference between `vectors` [..., codebook_dim] and their `nearest` codes."""
        return F.mse_loss(vectors, nearest)


class EMACodebook(Codebook):
    """A codebook whose codes follow the moving average of the vectors assigned to them.

    A code is the quotient of two decayed sums: of its vectors, and of their number. Each step moves the code by the
    difference, instead of dividing a stored sum of vectors by their number. So an unused code keeps its value to the
    bit, whereas a stored sum and count would decay to zero and make the quotient depend on the guard of the division.

    Buffers:
        embedding: [codebook_size, codebook_dim].
        ema_count: [codebook_size], moving average of vectors per step; only after `prepare_for_training`.

    Attributes:
        replaced: bool [codebook_size], True for codes that the last step replaced; None if it replaced none.
    """

    ema_count: Tensor

    def __init__(self, codebook_size: int, codebook_dim: int, ema_decay: float) -> None:
        super().__init__(codebook_size, codebook_dim)
        self.ema_decay = ema_decay
        self.replaced: Tensor | None = None

    def prepare_for_training(self) -> None:
        """Add `ema_count`, as if one vector per step had been assigned to every code."""
        self.register_buffer("ema_count", self.embedding.new_ones(len(self.embedding)))

    def initialize(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Set the codes to the k-means of `vectors` [n, codebook_dim]."""
        self.embedding.copy_(k_means(vectors, len(self.embedding), generator))
        self.ema_count.fill_(1)

    def update(self, codes: Tensor, weights: Tensor, totals: Tensor) -> None:
        """Move codes towards the vectors of a step.

        Args:
            codes: [n], may repeat.
            weights: [n], number of vectors in each row of `totals`; may be 0.
            totals: [n, codebook_dim], sums of vectors assigned to `codes`.
        """
        self.replaced = None
        new = 1 - self.ema_decay
        self.ema_count.lerp_(torch.zeros_like(self.ema_count).index_add_(0, codes, weights), new)
        moves = totals - weights.unsqueeze(1) * self.embedding[codes]
        # A code with a vector has a count of at least `new`; below it are codes without vectors, which do not move.
        moves *= (new / self.ema_count[codes].clamp(min=new)).unsqueeze(1)
        add_rows(self.embedding, codes, moves)

    def replace(self, expired: Tensor, vectors: Tensor) -> Tensor:
        """Replace the codes `expired` [codebook_size] by one of `vectors` [n, codebook_dim] each, at most n codes.

        Returns:
            bool [codebook_size], True for replaced codes.
        """
        place = expired.cumsum(0) - 1
        replaced = expired & (place < len(vectors))
        rows = vectors[place.clamp(0, len(vectors) - 1)]
        # Reset the count as well: the next update divides by it, and the old one would make the new code too mobile.
        self.embedding.copy_(torch.where(replaced.unsqueeze(1), rows, self.embedding))
        self.ema_count.copy_(torch.where(replaced, self.ema_count.mean(), self.ema_count))
        self.replaced = replaced
        return replaced
