"""Order in which waiting units run."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Units heavier than this many typical ones run first: begun last, each would keep all other workers waiting.
HEAVY_FACTOR = 1.5


class UnitQueue:
    """Waiting units: heavy ones first, then the others in their order, then the ones to be tried again.

    Neighbours in the plan are neighbours in its tables and often in the same file, so that the order of the plan is
    the one that is read fastest.

    Args:
        units: numbers in the order of the plan.
        weights: expected relative time of each, shape (units,).
    """

    def __init__(self, units: Sequence[int], weights: npt.NDArray[np.float64]) -> None:
        self._heavy = self._heaviest_first(weights)
        self._units = array("q", units)
        is_heavy = np.zeros(len(units), bool)
        is_heavy[self._heavy] = True
        self._is_heavy = is_heavy
        self._next_heavy = self._next = 0
        self._left = len(units)
        self._again: deque[int] = deque()

    def __len__(self) -> int:
        return self._left + len(self._again)

    def pop(self) -> int:
        """Take the next unit.

        Raises:
            IndexError: no unit waits.
        """
        if not self._left:
            return self._again.popleft()
        self._left -= 1
        if self._next_heavy < len(self._heavy):
            self._next_heavy += 1
            return int(self._units[self._heavy[self._next_heavy - 1]])
        while self._is_heavy[self._next]:
            self._next += 1
        self._next += 1
        return self._units[self._next - 1]

    def append(self, unit: int) -> None:
        """Add a unit that is tried again: after all others, since a fault of a machine may have passed by then."""
        self._again.append(unit)

    @staticmethod
    def _heaviest_first(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the positions of the heavy units, the heaviest first and equal ones in their order."""
        if not len(weights):
            return np.empty(0, np.int64)
        heavy = np.flatnonzero(weights > HEAVY_FACTOR * np.median(weights))
        found: npt.NDArray[np.int64] = heavy[np.argsort(-weights[heavy], kind="stable")]
        return found
