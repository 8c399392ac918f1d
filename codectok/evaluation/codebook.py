"""How a codebook is used, from how often each of its codes came up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from codectok.config import StrictModel


def count_codes(counts: np.ndarray, codes: np.ndarray) -> None:
    """Add how often each code comes up in `codes` [n_frames, n_codebooks] to `counts` [n_codebooks, codebook_size]."""
    for of_codebook, column in zip(counts, codes.T, strict=True):
        of_codebook += np.bincount(column, minlength=len(of_codebook))


class CodebookUse(StrictModel):
    """Use of one codebook.

    Attributes:
        used: codes that came up at all; `used_share` of all codes.
        entropy: bits per code.
        perplexity: 2 to the entropy, the number of codes that, used evenly, would say as much.
        counts: of every code.
    """

    used: int
    used_share: float
    entropy: float
    perplexity: float
    counts: tuple[int, ...]

    @classmethod
    def of(cls, counts: Sequence[int] | np.ndarray) -> CodebookUse:
        """The use that `counts` [codebook_size] show."""
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
