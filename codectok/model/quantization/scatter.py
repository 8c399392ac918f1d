"""Sums of rows and counts by code."""

from __future__ import annotations

import torch
from torch import Tensor


def add_rows(target: Tensor, codes: Tensor, rows: Tensor) -> Tensor:
    """Add `rows` [n, D] to the rows `codes` [n] of `target` [codebook_size, D], in place.

    The order of summation is fixed: ranks that add the same rows get the same bits.
    """
    if target.is_cuda:
        # On a GPU `index_put_` sorts and `index_add_` adds in any order; on a CPU it is the other way round.
        return target.index_put_((codes,), rows, accumulate=True)
    return target.index_add_(0, codes, rows)


def occurrences(codes: Tensor, codebook_size: int) -> Tensor:
    """Count how often each code occurs in `codes` [n]: int64 [codebook_size]."""
    # `bincount` would synchronize with the GPU.
    return codes.new_zeros(codebook_size).index_add_(0, codes, torch.ones_like(codes))
