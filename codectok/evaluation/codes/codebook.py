"""Codebook statistics: codes used, entropy and perplexity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from codectok.config import StrictModel


def count_codes(counts: np.ndarray, codes: np.ndarray) -> None:
    """Count `codes` [n_frames, n_codebooks] and add the counts to `counts` [n_codebooks, codebook_size] in place."""
    for of_codebook, column in zip(counts, codes.T, strict=True):
        of_codebook += np.bincount(column, minlength=len(of_codebook))


class CodebookUse(StrictModel):
    """Usage statistics of one codebook.

    Attributes:
        used: number of codes that occur.
        used_share: `used` as a share of the codebook size.
        entropy: of the distribution of codes, in bits per code.
        perplexity: 2 to the power of the entropy, the effective number of codes.
        counts: occurrences of each code.
    """

    used: int
    used_share: float
    entropy: float
    perplexity: float
    counts: tuple[int, ...]

    @classmethod
    def of(cls, counts: Sequence[int] | np.ndarray) -> CodebookUse:
        """Compute the statistics from `counts` [codebook_size]."""
        array = np.asarray(counts, np.int64)
        total = int(array.sum())
        shares = array[array > 0] / max(1, total)
        entropy = float(-(shares * np.log2(shares)).sum()) + 0.0
        return cls(
            used=len(shares),
            used_share=len(shares) / len(array),
            entropy=entropy,
            perplexity=float(2.0**entropy),
            counts=tuple(array.tolist()),
        )
