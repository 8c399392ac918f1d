"""Assigns positions of the stream to sources, in exact proportions by integer arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction


class Mixture:
    """Distributes an endless stream of positions among sources.

    Any `sum(shares)` consecutive positions contain exactly `shares[n]` of source n, spread evenly: each source in turn
    takes a Bresenham line of the positions that earlier sources left over.
    """

    def __init__(self, shares: Sequence[int]) -> None:
        self.shares = tuple(shares)
        self.period = sum(shares)

    def locate(self, position: int) -> tuple[int, int]:
        """Return the source at `position`, and the number of earlier positions of that source."""
        total = self.period
        last = len(self.shares) - 1
        for source, share in enumerate(self.shares[:last]):
            before = position * share // total
            if (position + 1) * share // total > before:
                return source, before
            position -= before
            total -= share
        return last, position


def shares_of_weights(weights: Sequence[float]) -> list[int]:
    """The smallest integers in the exact proportion of the decimal numbers `weights`."""
    exact = [Fraction(str(weight)) for weight in weights]
    scale = math.lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * scale) for weight in exact]
    divisor = math.gcd(*whole)
    return [share // divisor for share in whole]


def shares_of_replays(sizes: Sequence[int], rates: Sequence[float]) -> list[int]:
    """Number of samples of each source in an epoch: its size times its rate, rounded, at least 1."""
    return [max(1, round(size * Fraction(str(rate)))) for size, rate in zip(sizes, rates, strict=True)]
