"""Collective operations of a distributed run; without one, the process is the only rank.

All ranks must call these functions in the same order with tensors of the same shape.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def n_ranks() -> int:
    """Return the number of ranks."""
    return dist.get_world_size() if _distributed() else 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum `tensor` over all ranks, in place."""
    if _distributed():
        dist.all_reduce(tensor)
    return tensor


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the rows [n, ...] of all ranks in rank order to [n_ranks * n, ...]."""
    if not _distributed():
        return rows
    gathered = rows.new_empty(n_ranks() * len(rows), *rows.shape[1:])
    dist.all_gather_into_tensor(gathered, rows.contiguous())
    return gathered


def take_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Return `gather_rows(rows)[index]` for `rows` [n, C] and `index` [k], but communicate only k rows."""
    if not _distributed():
        return rows[index]
    own = index - dist.get_rank() * len(rows)
    here = (own >= 0) & (own < len(rows))
    return sum_over_ranks(torch.where(here.unsqueeze(1), rows[own.clamp(0, len(rows) - 1)], 0))


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
