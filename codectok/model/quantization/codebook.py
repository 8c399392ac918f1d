"""One codebook: nearest-neighbour search, and learning by exponential moving averages."""

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
        """Add what only training needs; nothing by default."""

    def search(self, vectors: Tensor) -> Tensor:
        """Index [n] of the nearest code to each of `vectors` [n, codebook_dim]; ties go to the lowest index."""
        return nearest_codes(vectors, self.embedding)

    def half_squared_norms(self) -> Tensor:
        """Half the squared length [codebook_size] of every code vector."""
        return torch.linalg.vector_norm(self.embedding, dim=1).square() / 2

    def lookup(self, codes: Tensor) -> Tensor:
        """Code vectors [..., codebook_dim] of `codes` [...]."""
        return F.embedding(codes, self.embedding)

    def commitment_loss(self, vectors: Tensor, nearest: Tensor) -> Tensor:
        """What pulls `vectors` [..., codebook_dim] to their `nearest` codes: the mean squared difference."""
        return F.mse_loss(vectors, nearest)


class AveragedCodebook(Codebook):
    """A codebook whose codes follow the moving average of the vectors assigned to them.

    A code is the quotient of two decayed sums: of its vectors, and of their number. It is moved by what a step brings
    instead of being divided anew from a stored sum of vectors. So a code without vectors stays where it is to the bit,
    however long, while a stored sum and count fade to zero and leave the quotient to whatever guards the division.

    Buffers: `embedding` [codebook_size, codebook_dim]. After `prepare_for_training` also `ema_count` [codebook_size],
    the moving average of vectors per step.

    Attributes:
        replaced: which codes the last step has placed elsewhere, bool [codebook_size]; None for a step that has not.
    """

    ema_count: Tensor

    def __init__(self, codebook_size: int, codebook_dim: int, ema_decay: float) -> None:
        super().__init__(codebook_size, codebook_dim)
        self.ema_decay = ema_decay
        self.replaced: Tensor | None = None

    def prepare_for_training(self) -> None:
        """Add the average count, as if every code had been assigned its own vector once."""
        self.register_buffer("ema_count", self.embedding.new_ones(len(self.embedding)))

    def initialize(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Place the codes on the k-means of `vectors` [n, codebook_dim]."""
        self.embedding.copy_(k_means(vectors, len(self.embedding), generator))
        self.ema_count.fill_(1)

    def update(self, codes: Tensor, weights: Tensor, totals: Tensor) -> None:
        """Move the codes towards a step's vectors.

        Args:
            codes: [n], may repeat.
            weights: [n], how many vectors each row of `totals` stands for; none is fine.
            totals: [n, codebook_dim], sums of that many vectors which are assigned to `codes`.
        """
        self.replaced = None
        new = 1 - self.ema_decay
        self.ema_count.lerp_(torch.zeros_like(self.ema_count).index_add_(0, codes, weights), new)
        moves = totals - weights.unsqueeze(1) * self.embedding[codes]
        # One vector makes a count of at least `new`; below are only codes without any, which do not move.
        moves *= (new / self.ema_count[codes].clamp(min=new)).unsqueeze(1)
        add_rows(self.embedding, codes, moves)

    def replace(self, expired: Tensor, vectors: Tensor) -> Tensor:
        """Place the codes `expired` [codebook_size] on `vectors` [n, codebook_dim], one each as far as they go.

        Returns:
            Which codes were replaced, bool [codebook_size].
        """
        place = expired.cumsum(0) - 1
        replaced = expired & (place < len(vectors))
        rows = vectors[place.clamp(0, len(vectors) - 1)]
        # Vector and count go together: the count of the old code would say how hard the new one is to move.
        self.embedding.copy_(torch.where(replaced.unsqueeze(1), rows, self.embedding))
        self.ema_count.copy_(torch.where(replaced, self.ema_count.mean(), self.ema_count))
        self.replaced = replaced
        return replaced
