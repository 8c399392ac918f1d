"""Kernels that search a large codebook: one product that keeps only the best scores, and exact scores of these.

The product never writes its scores (1 GB for 8,192 vectors and 32,768 codes). Each program scores a tile of vectors and
codes and writes the two best of each vector, with the code's place in the lowest bits of the score.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

TILE_VECTORS = 128
TILE_CODES = 128
TILE_DEPTH = 64
# Tiles of vectors that share tiles of codes in the GPU's cache.
GROUP = 16
CANDIDATES = 8
KEPT = 2  # best codes of a tile


@triton.jit
def _best_of_tiles_kernel(
    vectors, vector_scales, table, code_scales, offset, keys, n_vectors, n_codes,
    DEPTH: tl.constexpr, TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    tiles_m = tl.cdiv(n_vectors, TILE_M)
    tiles_n = n_codes // TILE_N
    in_group = GROUP_M * tiles_n
    first_m = program // in_group * GROUP_M
    height = min(tiles_m - first_m, GROUP_M)
    tile_m = first_m + program % in_group % height
    tile_n = program % in_group // height

    rows = tile_m * TILE_M + tl.arange(0, TILE_M)
    # Rows beyond the end repeat the last one; they are not stored.
    read = tl.minimum(rows, n_vectors - 1)
    columns = tl.arange(0, TILE_N)
    codes = tile_n * TILE_N + columns
    inner = tl.arange(0, TILE_K)
    left = vectors + read[:, None].to(tl.int64) * DEPTH + inner[None, :]
    right = table + codes[None, :].to(tl.int64) * (2 * DEPTH) + inner[:, None]
    scores = tl.zeros((TILE_M, TILE_N), tl.float32)
    for first in range(0, 2 * DEPTH, TILE_K):
        scores = tl.dot(tl.load(left + first % DEPTH), tl.load(right + first), scores)
    scores = scores * tl.load(vector_scales + read)[:, None] * tl.load(code_scales + codes)[None, :]
    scores += tl.load(offset + codes)[None, :]
    # Integers in the order of the scores; the last bits say which code it is, lower codes first.
    bits = scores.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    marked = (ordered & ~(TILE_N - 1)) | (TILE_N - 1 - columns)[None, :]
    best = tl.max(marked, 1)
    second = tl.max(tl.where(marked == best[:, None], -2147483648, marked), 1)
    place = keys + rows.to(tl.int64) * (2 * tiles_n) + 2 * tile_n
    tl.store(place, best, mask=rows < n_vectors)
    tl.store(place + 1, second, mask=rows < n_vectors)


@triton.jit
def _rescore_kernel(
    vectors, centre, keys, code_at, table, offset, found, dim, n_keys,
    TILE_N: tl.constexpr, CANDIDATES: tl.constexpr, KEYS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    channels = tl.arange(0, DIM)
    inside = channels < dim
    vector = tl.load(vectors + row * dim + channels, mask=inside, other=0.0)
    vector -= tl.load(centre + channels, mask=inside, other=0.0)
    numbers = tl.arange(0, KEYS)
    left = tl.load(keys + row * n_keys + numbers, mask=numbers < n_keys, other=-2147483648)
    best_score = float("-inf")
    best_code = tl.load(code_at)  # for scores that are not numbers
    for _ in range(CANDIDATES):
        key = tl.max(left, 0)
        number = tl.min(tl.where(left == key, numbers, KEYS), 0)
        left = tl.where(numbers == number, -2147483648, left)
        place = number // 2 * TILE_N + (TILE_N - 1 - (key & (TILE_N - 1)))
        code = tl.load(code_at + place)
        exact = tl.load(table + code.to(tl.int64) * dim + channels, mask=inside, other=0.0)
        score = tl.sum(exact * vector, 0) + tl.load(offset + code)
        better = (score > best_score) | ((score == best_score) & (code < best_code))
        best_code = tl.where(better, code, best_code)
        best_score = tl.where(better, score, best_score)
    tl.store(found + row, best_code.to(tl.int64))


@triton.jit
def _to_half_kernel(vectors, centre, half, scales, dim, depth, DIM: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    channels = tl.arange(0, DIM)
    inside = channels < dim
    vector = tl.load(vectors + row * dim + channels, mask=inside, other=0.0)
    vector -= tl.load(centre + channels, mask=inside, other=0.0)
    # A power of two below the largest magnitude: the largest number becomes 1 to 2, so that none overflows.
    largest = tl.max(tl.abs(vector), 0)
    exponent = largest.to(tl.int32, bitcast=True) & 0x7F800000
    scale = tl.where(exponent > 0, exponent, 0x3F800000).to(tl.float32, bitcast=True)
    tl.store(half + row * depth + channels, (vector / scale).to(tl.float16), mask=channels < depth)
    tl.store(scales + row, scale)


class FusedSearch:
    """Finds argmax_j of (`vectors` - `centre`) . table[j] + offset[j]; ties go to the lowest index.

    Args:
        table: float32 [codebook_size, dim], centred.
        offset: float32 [codebook_size].
        centre: float32 [dim].
        distinct: ascending codes int64 [n] to search, each unlike all before it.
    """

    def __init__(self, table: Tensor, offset: Tensor, centre: Tensor, distinct: Tensor) -> None:
        self._table, self._offset, self._centre = table.contiguous(), offset, centre
        self._dim = table.shape[1]
        depth = triton.cdiv(self._dim, TILE_DEPTH) * TILE_DEPTH
        self._n_tiles = triton.cdiv(len(distinct), TILE_CODES)
        # Neighbours in the codebook may be close to each other, and a tile keeps few codes: deal them out to all tiles.
        n_places = self._n_tiles * TILE_CODES
        places = torch.arange(n_places, device=table.device).view(TILE_CODES, self._n_tiles).T.flatten()
        empty = places >= len(distinct)
        self._code_at = distinct[places.clamp(max=len(distinct) - 1)].to(torch.int32)
        rows = table[self._code_at.long()]
        self._code_scales = _powers_of_two(rows)
        rows = F.pad(rows / self._code_scales.unsqueeze(1), (0, depth - self._dim))
        # The sum of two: rounded to one, codes close to each other would swap order. One is enough for vectors, since
        # their rounding shifts the scores of close codes alike.
        high = rows.half()
        self._half_table = torch.cat([high, (rows - high.float()).half()], 1)
        lowest = torch.finfo(torch.float32).min
        self._half_offset = torch.where(empty, lowest, offset[self._code_at.long()])

    def __call__(self, vectors: Tensor) -> Tensor:
        """Find the codes [n] int64 of `vectors` float32 [n, dim]."""
        vectors = vectors.contiguous()
        n_vectors, depth = len(vectors), self._half_table.shape[1] // 2
        half = torch.empty(n_vectors, depth, dtype=torch.float16, device=vectors.device)
        scales = torch.empty(n_vectors, device=vectors.device)
        dim_block = triton.next_power_of_2(depth)
        _to_half_kernel[(n_vectors,)](vectors, self._centre, half, scales, self._dim, depth, dim_block, num_warps=4)
        n_places = len(self._half_table)
        keys = torch.empty(n_vectors, KEPT * self._n_tiles, dtype=torch.int32, device=vectors.device)
        tiles = triton.cdiv(n_vectors, TILE_VECTORS) * self._n_tiles
        _best_of_tiles_kernel[(tiles,)](
            half, scales, self._half_table, self._code_scales, self._half_offset, keys, n_vectors, n_places, depth,
            TILE_VECTORS, TILE_CODES, TILE_DEPTH, GROUP, num_warps=8, num_stages=3,
        )  # fmt: skip
        found = torch.empty(n_vectors, dtype=torch.int64, device=vectors.device)
        n_keys = keys.shape[1]
        _rescore_kernel[(n_vectors,)](
            vectors, self._centre, keys, self._code_at, self._table, self._offset, found, self._dim, n_keys,
            TILE_CODES, min(CANDIDATES, n_keys), triton.next_power_of_2(n_keys), dim_block, num_warps=4,
        )  # fmt: skip
        return found


def _powers_of_two(rows: Tensor) -> Tensor:
    """Return the power of two at or below the largest magnitude of each of `rows` [n, dim]; 1 for zeros."""
    largest = rows.abs().amax(1)
    return torch.where(largest > 0, torch.exp2(torch.floor(torch.log2(largest))), 1.0)
