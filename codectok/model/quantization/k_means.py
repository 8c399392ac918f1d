"""K-means clustering by Lloyd's algorithm from a random start."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .scatter import add_rows, occurrences

ITERATIONS = 10
SEARCH_ROWS = 1024


@torch.no_grad()
def nearest_codes(vectors: Tensor, table: Tensor) -> Tensor:
    """Find the row of `table` [codebook_size, D] nearest to each of `vectors` [n, D]; ties go to the lowest index.

    Returns:
        Indices [n].
    """
    # argmin |x - e|^2 = argmax x . e - |e|^2 / 2; in slices, since each row needs codebook_size floats.
    offset = torch.linalg.vector_norm(table, dim=1).square() / -2
    scores = vectors.new_empty(min(SEARCH_ROWS, len(vectors)), len(table))
    return torch.cat(
        [
            torch.addmm(offset, rows, table.T, out=scores[: len(rows)]).argmax(1)
            for rows in torch.split(vectors, SEARCH_ROWS)
        ]
    )


def k_means(vectors: Tensor, n_means: int, generator: torch.Generator) -> Tensor:
    """Cluster `vectors` [n, D] to means [n_means, D]; with fewer vectors than means some means are equal."""
    order = torch.randperm(len(vectors), generator=generator, device=vectors.device)
    means = vectors[order.repeat(math.ceil(n_means / len(vectors)))[:n_means]]
    for _ in range(ITERATIONS):
        codes = nearest_codes(vectors, means)
        counts = occurrences(codes, n_means).unsqueeze(1)
        totals = add_rows(torch.zeros_like(means), codes, vectors)
        # Re-seed empty clusters.
        seeds = torch.randint(len(vectors), (n_means,), generator=generator, device=vectors.device)
        means = torch.where(counts > 0, totals / counts.clamp(min=1), vectors[seeds])
    return means
