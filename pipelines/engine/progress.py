"""Who hears of what a job does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .job import UnitRecord
from .plan import Plan


class Listener(Protocol):
    """Hears of what a job does."""

    def planned(self, plan: Plan, done: Sequence[UnitRecord], to_do: Sequence[int]) -> None:
        """The plan is stored; the units `to_do` will be run now."""

    def staffed(self, workers: int, threads: int, gpus: int) -> None:
        """So many workers run the units, with so many threads each, and GPUs beside them."""

    def finished(self, record: UnitRecord) -> None:
        """A unit is complete."""

    def busy(self, share: float) -> None:
        """The share of the time in which the GPUs had something to do so far."""

    def note(self, message: str) -> None:
        """Something that a person may want to know."""


class Silent:
    """A listener that does nothing."""

    def planned(self, plan: Plan, done: Sequence[UnitRecord], to_do: Sequence[int]) -> None:
        """Nothing."""

    def staffed(self, workers: int, threads: int, gpus: int) -> None:
        """Nothing."""

    def finished(self, record: UnitRecord) -> None:
        """Nothing."""

    def busy(self, share: float) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""
