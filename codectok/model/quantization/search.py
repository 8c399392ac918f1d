"""Nearest-code search in a frozen codebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

# Number of codes scored at once: their scores for a block of rows stay in a processor's cache.
SLICE_CODES = 4096
# The reduced search takes the best codes of the best chunks, and rescores that many candidates.
CHUNK_CODES = 64
CANDIDATES = 8
# Three bfloat16 numbers represent one float32 number; eight columns keep rows aligned for tensor cores.
OFFSET_COLUMNS = 8
# Below this size the exact search is as fast.
MIN_CODES_REDUCED = 4096


SearchMethod = Literal["exact", "reduced", "fused"]
"""Score all codes in float32 ("exact"); or score the codes of a large table in half precision, and rescore only the
best of them in float32: by operations of torch ("reduced"), or by kernels for a GPU ("fused")."""


class CodeSearch:
    """Finds argmax_j of `vectors . table[j] + offset[j]`; ties go to the lowest index.

    With `table` = code vectors and `offset` = minus half their squared norms, this is the nearest code.

    Args:
        table: float32 [codebook_size, dim].
        offset: float32 [codebook_size].
        centre: float32 [dim], approximate mean of the vectors; near it scores and their rounding errors are small.
        method: how to search; methods other than "exact" are faster on a GPU only.
    """

    def __init__(self, table: Tensor, offset: Tensor, centre: Tensor, method: SearchMethod = "exact") -> None:
        # Terms common to all codes do not affect the argmax, so they are dropped.
        self._table = table - table.mean(0)
        shifted = offset.double() + self._table.double() @ centre.double()
        self._offset = (shifted - shifted.mean()).float()
        self._centre = centre
        self._find: Callable[[Tensor], Tensor] = self._exact
        if method != "exact" and len(table) >= MIN_CODES_REDUCED:
            # Equal codes (dead codes are all zero) would displace better candidates.
            distinct = _first_of_equals(table)
            self._find = self._reduced(distinct) if method == "reduced" else self._fused(distinct)

    def __call__(self, vectors: Tensor) -> Tensor:
        """Find the codes [n] int64 of `vectors` float32 [n, dim]."""
        return self._find(vectors)

    def _exact(self, vectors: Tensor) -> Tensor:
        vectors = vectors - self._centre
        slices = zip(torch.split(self._table, SLICE_CODES), torch.split(self._offset, SLICE_CODES), strict=True)
        best = [torch.addmm(offset, vectors, table.T).max(1) for table, offset in slices]
        winner = torch.stack([values for values, _ in best], 1).argmax(1)
        inside = torch.stack([indices for _, indices in best], 1).gather(1, winner.unsqueeze(1))[:, 0]
        return winner * SLICE_CODES + inside

    def _reduced(self, distinct: Tensor) -> Callable[[Tensor], Tensor]:
        half_table = _in_halves(self._table[distinct], self._offset[distinct])

        def find(vectors: Tensor) -> Tensor:
            vectors = vectors - self._centre
            ones = vectors.new_ones(len(vectors), OFFSET_COLUMNS)
            half_vectors = torch.cat([vectors, vectors, ones], 1).bfloat16()
            scores = torch.unflatten(_product(half_vectors, half_table), 1, (-1, CHUNK_CODES))
            # The best codes are in the chunks with the largest maxima.
            chunks = scores.amax(2).topk(min(CANDIDATES, scores.shape[1]), dim=1).indices
            inside = scores.gather(1, chunks.unsqueeze(2).expand(-1, -1, CHUNK_CODES)).flatten(1)
            best = inside.topk(CANDIDATES, dim=1).indices
            candidates = chunks.gather(1, best // CHUNK_CODES) * CHUNK_CODES + best % CHUNK_CODES
            candidates = distinct[candidates.clamp(max=len(distinct) - 1)].sort(dim=1).values
            # Elementwise, since a matrix product may be computed in TF32.
            exact = (self._table[candidates] * vectors.unsqueeze(1)).sum(2) + self._offset[candidates]
            return candidates.gather(1, exact.argmax(1, keepdim=True))[:, 0]

        return find

    def _fused(self, distinct: Tensor) -> Callable[[Tensor], Tensor]:
        from codectok.model.kernels.nearest import FusedSearch

        return FusedSearch(self._table, self._offset, self._centre, distinct)


def _first_of_equals(table: Tensor) -> Tensor:
    """Return ascending indices of the rows of `table` [n, dim] that differ from all rows before them."""
    _, group = torch.unique(table, dim=0, return_inverse=True)
    numbers = torch.arange(len(table), device=table.device)
    firsts = numbers.new_full((int(group.max()) + 1,), len(table)).scatter_reduce(0, group, numbers, "amin")
    return firsts.sort().values


def _in_halves(table: Tensor, offset: Tensor) -> Tensor:
    """Return bfloat16 columns whose product with (vector, vector, ones) is the score, padded to whole chunks of codes.

    The table is split into the sum of two bfloat16 tables: rounded to one, codes close to each other would swap order.
    A single bfloat16 is enough for vectors, since their rounding shifts the scores of close codes alike. Padding rows
    have the lowest possible offset.
    """
    halves = _terms(table, 2) + _terms(offset.unsqueeze(1), OFFSET_COLUMNS)
    half = torch.cat(halves, 1)
    missing = half.new_zeros(-len(half) % CHUNK_CODES, half.shape[1])
    missing[:, -1] = torch.finfo(torch.bfloat16).min
    return torch.cat([half, missing])


def _terms(values: Tensor, count: int) -> list[Tensor]:
    """Split `values` into a sum of `count` bfloat16 tensors, each the rounding error of the sum before it."""
    terms: list[Tensor] = []
    for _ in range(count):
        terms.append(values.bfloat16())
        values = values - terms[-1].float()
    return terms


def _product(vectors: Tensor, table: Tensor) -> Tensor:
    """Multiply bfloat16 matrices with float32 accumulation and output."""
    if vectors.is_cuda:
        return torch.mm(vectors, table.T, out_dtype=torch.float32)
    # A bfloat16 product on a CPU would round the scores by more than the best of them differ.
    return vectors.float() @ table.float().T
