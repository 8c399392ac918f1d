"""Recent encoder outputs that replace unused codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .distributed import n_ranks, take_rows

# One update replaces at most 1/8 of the rows, so that they come from several batches, even of large ones.
UPDATES_TO_FILL = 8


class Reservoir(nn.Module):
    """Ring buffer of the newest rows of all ranks; equal on every rank.

    Buffers:
        rows: [capacity, dim]; the number of rows ever added is saved with them.
    """

    rows: Tensor

    def __init__(self, capacity: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(capacity, dim))
        self._n_added = 0

    def add(self, rows: Tensor) -> None:
        """Add the `rows` [n, dim] of all ranks, or an evenly spaced subset if they are too many."""
        capacity, available = len(self.rows), n_ranks() * len(rows)
        count = torch.arange(min(available, max(1, capacity // UPDATES_TO_FILL)), device=rows.device)
        taken = take_rows(rows, count * available // len(count))
        self.rows.index_copy_(0, (self._n_added + count) % capacity, taken)
        self._n_added += len(count)

    def draw(self, n: int) -> Tensor:
        """Draw up to `n` different rows at random; equal on every rank and after resuming."""
        generator = torch.Generator(self.rows.device).manual_seed(self._n_added)
        filled = min(self._n_added, len(self.rows))
        return self.rows[torch.randperm(filled, generator=generator, device=self.rows.device)[:n]]

    def get_extra_state(self) -> Tensor:
        """Return the number of rows ever added, for checkpoints."""
        return torch.tensor(self._n_added)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the result of `get_extra_state`."""
        self._n_added = int(state)
