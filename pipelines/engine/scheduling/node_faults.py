"""Machines of a cluster on which units fail that others make."""

from __future__ import annotations

from collections import Counter

# Errors in a row after which a machine is out of order.
ERRORS_IN_A_ROW = 5


class NodeFaults:
    """Counts errors of units by machine."""

    def __init__(self) -> None:
        self._errors: Counter[str] = Counter()
        self._sound: set[str] = set()

    def succeeded(self, node: str) -> None:
        """Called when a machine has made a unit."""
        self._sound.add(node)
        self._errors.pop(node, None)

    def others_work(self, node: str) -> bool:
        """True if another machine has made a unit, and has not failed since."""
        return any(other != node and other not in self._errors for other in self._sound)

    def is_out_of_order(self, node: str, at_once: bool) -> bool:
        """Count an error of a machine; True if it is to be left out, since others work.

        Args:
            node: the machine.
            at_once: True for an error that all its units will have, such as a full disk.
        """
        self._errors[node] += 1
        return (at_once or self._errors[node] >= ERRORS_IN_A_ROW) and self.others_work(node)
