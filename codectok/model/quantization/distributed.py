"""Sums and rows over the ranks of a distributed run; a process that belongs to none is the only rank.

Every rank calls these at the same places with tensors of the same shape.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def n_ranks() -> int:
    """How many there are at this moment."""
    return dist.get_world_size() if _distributed() else 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """`tensor`, in place, with those of all ranks added."""
    if _distributed():
        dist.all_reduce(tensor)
    return tensor


def gather_rows(rows: Tensor) -> Tensor:
    """The rows [n, ...] of all ranks in the order of ranks [n_ranks * n, ...]."""
    if not _distributed():
        return rows
    gathered = rows.new_empty(n_ranks() * len(rows), *rows.shape[1:])
    dist.all_gather_into_tensor(gathered, rows.contiguous())
    return gathered


def take_rows(rows: Tensor, index: Tensor) -> Tensor:
    """`gather_rows(rows)[index]` for `rows` [n, C] and `index` [k], at the price of k rows instead of all."""
    if not _distributed():
        return rows[index]
    own = index - dist.get_rank() * len(rows)
    here = (own >= 0) & (own < len(rows))
    return sum_over_ranks(torch.where(here.unsqueeze(1), rows[own.clamp(0, len(rows) - 1)], 0))


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
