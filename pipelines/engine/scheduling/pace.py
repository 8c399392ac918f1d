"""How long units take for their size, and which running ones are far behind."""

from __future__ import annotations

from bisect import insort
from collections import deque

# A unit is slow if it takes this many times as long as the typical one of its size, and at least as many seconds more.
SLOW_FACTOR = 1.75
LEAST_SECONDS_BEHIND = 10.0
# Units of which the typical one is known: the last ones, of at least so many.
KEPT_UNITS = 201
LEAST_UNITS = 5


class Pace:
    """Typical seconds of a unit of weight 1: the median of the last units."""

    def __init__(self) -> None:
        self._last: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, seconds: float, weight: float) -> None:
        """Add a unit that was made within `seconds`."""
        rate = seconds / weight
        self._last.append(rate)
        insort(self._sorted, rate)
        if len(self._last) > KEPT_UNITS:
            self._sorted.remove(self._last.popleft())

    def slow_after(self, weight: float) -> float | None:
        """Seconds after which a unit of this weight is slow; None as long as too few units are known."""
        if len(self._sorted) < LEAST_UNITS:
            return None
        expected = self._sorted[len(self._sorted) // 2] * weight
        return max(SLOW_FACTOR * expected, expected + LEAST_SECONDS_BEHIND)
