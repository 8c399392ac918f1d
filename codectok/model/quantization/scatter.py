"""Sums of rows by code."""

from __future__ import annotations

import torch
from torch import Tensor


def add_rows(target: Tensor, codes: Tensor, rows: Tensor) -> Tensor:
    """Add `rows` [n, D] to the rows `codes` [n] of `target` [codebook_size, D], in place.

    The sums have a fixed order: ranks that add the same rows get the same bits.
    """
    if target.is_cuda:
        # There `index_add_` adds in any order, and this sorts; on a CPU it is the other way round.
        return target.index_put_((codes,), rows, accumulate=True)
    return target.index_add_(0, codes, rows)


def occurrences(codes: Tensor, codebook_size: int) -> Tensor:
    """How often each code occurs in `codes` [n]: int64 [codebook_size]."""
    # `bincount` waits for a GPU.
    return codes.new_zeros(codebook_size).index_add_(0, codes, torch.ones_like(codes))
