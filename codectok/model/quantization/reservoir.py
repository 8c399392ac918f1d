"""Recent encoder outputs, from which unused codes are replaced."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .distributed import n_ranks, take_rows

# An update renews at most this part, so that what is in it comes from several batches, however large they are.
LARGEST_PART = 8


class Reservoir(nn.Module):
    """The newest rows of all ranks in a ring; the same on every rank.

    Buffers: `rows` [capacity, dim]. How many rows ever came in is saved with them.
    """

    rows: Tensor

    def __init__(self, capacity: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(capacity, dim))
        self._seen = 0

    def add(self, rows: Tensor) -> None:
        """Take in this rank's `rows` [n, dim], or an even choice of all ranks' rows where they are too many."""
        capacity, available = len(self.rows), n_ranks() * len(rows)
        count = torch.arange(min(available, max(1, capacity // LARGEST_PART)), device=rows.device)
        taken = take_rows(rows, count * available // len(count))
        self.rows.index_copy_(0, (self._seen + count) % capacity, taken)
        self._seen += len(count)

    def draw(self, n: int) -> Tensor:
        """Up to `n` different rows at random; the same on every rank, and after every resume."""
        generator = torch.Generator(self.rows.device).manual_seed(self._seen)
        filled = min(self._seen, len(self.rows))
        return self.rows[torch.randperm(filled, generator=generator, device=self.rows.device)[:n]]

    def get_extra_state(self) -> Tensor:
        """Rows that ever came in, for checkpoints."""
        return torch.tensor(self._seen)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from what `get_extra_state` gave."""
        self._seen = int(state)
