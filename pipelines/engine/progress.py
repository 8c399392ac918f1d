"""Callbacks for the progress of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from codectok.pipelines.engine.output.records import UnitRecord
from codectok.pipelines.engine.planning.plan import Plan


@dataclass(frozen=True)
class Machine:
    """A machine of a cluster, as it answered before the first unit.

    Attributes:
        name: host and address.
        cpus, gpus: that Ray may use.
        programs: versions of its programs, by name.
    """

    name: str
    cpus: float
    gpus: float
    programs: Mapping[str, str]


class ProgressCallback(Protocol):
    """Receives the progress of a job, on the driver."""

    def planned(self, plan: Plan, done: Sequence[UnitRecord], to_do: Sequence[int]) -> None:
        """Called once the plan is stored, before the units `to_do` run."""

    def asked(self, machines: Sequence[Machine]) -> None:
        """Called with the machines of a cluster that was joined, once all can work on the job."""

    def started(self, workers: int, threads: int, gpus: int) -> None:
        """Called when the number of workers is known, with the threads of each and the GPUs in use (Ray only)."""

    def finished(self, record: UnitRecord) -> None:
        """Called for each unit that is complete."""

    def busy(self, share: float) -> None:
        """Called from time to time with the share of the time in which the GPUs were busy so far."""

    def note(self, message: str) -> None:
        """Called with messages for the user."""


class NullProgress:
    """A progress callback that does nothing."""

    def planned(self, plan: Plan, done: Sequence[UnitRecord], to_do: Sequence[int]) -> None:
        """Do nothing."""

    def asked(self, machines: Sequence[Machine]) -> None:
        """Do nothing."""

    def started(self, workers: int, threads: int, gpus: int) -> None:
        """Do nothing."""

    def finished(self, record: UnitRecord) -> None:
        """Do nothing."""

    def busy(self, share: float) -> None:
        """Do nothing."""

    def note(self, message: str) -> None:
        """Do nothing."""
