"""Which source a position of the stream takes its sample from: exact proportions by whole-number arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction


class Mixture:
    """Deals an endless stream of positions out to sources.

    Any `sum(shares)` neighbouring positions hold exactly `shares[n]` of source n, and those lie as evenly as they can
    (lines of Bresenham, one for each source among what those before it have left).
    """

    def __init__(self, shares: Sequence[int]) -> None:
        self.shares = tuple(shares)
        self.period = sum(shares)

    def locate(self, position: int) -> tuple[int, int]:
        """The source at `position`, and how many positions it has had before."""
        total = self.period
        for source, share in enumerate(self.shares):
            before = position * share // total
            if (position + 1) * share // total > before:
                return source, before
            position -= before
            total -= share
        raise AssertionError("the last source takes what is left")


def shares_of_weights(weights: Sequence[float]) -> list[int]:
    """The smallest whole numbers in the proportion of `weights`, exactly as these are written (in decimals)."""
    exact = [Fraction(str(weight)) for weight in weights]
    scale = math.lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * scale) for weight in exact]
    divisor = math.gcd(*whole)
    return [share // divisor for share in whole]


def shares_of_replays(sizes: Sequence[int], rates: Sequence[float]) -> list[int]:
    """How many samples of each source an epoch holds: `rates` times its size, to the nearest and at least one."""
    return [max(1, round(size * Fraction(str(rate)))) for size, rate in zip(sizes, rates, strict=True)]
