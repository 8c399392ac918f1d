"""Codebook usage, counted over windows long enough to tell an unused code from a rare one.

A training step often has fewer tokens than there are codes. Most codes then get no token, and averages over single
steps are mostly noise. So usage is counted over a window that closes once it holds WINDOW_TOKENS_PER_CODE tokens per
code, over however many steps that takes. A code with a quarter of the average usage gets about 4 tokens in such a
window; a code below a twentieth of uniform usage (the default expiry share) got none.

The window is not longer, because features move at the start of training: codes that no token found stay behind, the
remaining codes are too few to tell features apart, the features become alike, and nothing separates them again. (In the
first 400 steps of the configuration `nano` the codes had a perplexity of 3 % of their number with 40 tokens per code,
and of 55 % with 8.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

WINDOW_TOKENS_PER_CODE = 16


class UsageWindow(nn.Module):
    """Counts how often every code is used, and keeps the counts of the last full window.

    Buffers: `counts` int64 [n_codebooks, codebook_size] of the current window, `last_counts` of the last full window,
    `expired_share` (scalar), the share of codes replaced at its end. The token counts of both windows are saved with
    them.

    Attributes:
        last_tokens: number of tokens in the last full window, 0 before the first one.
    """

    counts: Tensor
    last_counts: Tensor
    expired_share: Tensor

    def __init__(self, n_codebooks: int, codebook_size: int) -> None:
        super().__init__()
        counts = torch.zeros(n_codebooks, codebook_size, dtype=torch.int64)
        self.register_buffer("counts", counts)
        self.register_buffer("last_counts", counts.clone())
        self.register_buffer("expired_share", torch.zeros(()))
        self._tokens, self.last_tokens = 0, 0

    def add(self, counts: Tensor, n_tokens: int) -> bool:
        """Add `counts` [n_codebooks, codebook_size] of `n_tokens` tokens; True if this completes the window."""
        self.counts += counts
        self._tokens += n_tokens
        if self._tokens < WINDOW_TOKENS_PER_CODE * self.counts.shape[1]:
            return False
        self.last_counts.copy_(self.counts)
        self.last_tokens = self._tokens
        self.counts.zero_()
        self._tokens = 0
        return True

    def metrics(self) -> dict[str, Tensor]:
        """Metrics of the last full window (of the first window until it is full), averaged over the codebooks.

        Returns:
            `codebook_usage`, the share of codes used; `codebook_entropy` in bits; `codebook_perplexity_share`, the
            perplexity divided by the codebook size; `codebook_expired_share`, the share of codes replaced.
        """
        counts, tokens = (self.last_counts, self.last_tokens) if self.last_tokens else (self.counts, self._tokens)
        shares = counts.double() / max(1, tokens)
        entropy = -torch.xlogy(shares, shares).sum(1)
        return {
            "codebook_usage": (counts > 0).double().mean(),
            "codebook_entropy": entropy.mean() / math.log(2),
            "codebook_perplexity_share": (entropy.exp() / counts.shape[1]).mean(),
            "codebook_expired_share": self.expired_share,
        }

    def get_extra_state(self) -> Tensor:
        """Token counts of both windows, for checkpoints."""
        return torch.tensor([self._tokens, self.last_tokens])

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the token counts from `get_extra_state`."""
        self._tokens, self.last_tokens = state.tolist()
