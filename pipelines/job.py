"""What a job is: one function from a unit to its output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .rejects import Reject
from .sources import Unit

# Bits can depend on the threads of a product, so every worker has the same number wherever it runs.
WORKER_THREADS = 1


@dataclass(frozen=True)
class UnitResult:
    """What came of a unit: rows (samples, table rows) written, seconds of audio and codes in them, and rejects."""

    rows: int
    seconds: float
    rejects: tuple[Reject, ...] = ()
    codes: int = 0


@dataclass(frozen=True)
class OutputFile:
    """A file of the output; `name` is relative to the output folder."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class FinishedUnit:
    """A unit and the files it became."""

    unit: Unit
    result: UnitResult
    files: tuple[OutputFile, ...]


class Job(ABC):
    """A job is sent to every worker; `set_up` is called there once, then `run` for each unit.

    `verb` is the word on the command line, `row_name` what it calls a row of output.
    """

    verb: str
    row_name: str

    @abstractmethod
    def options(self) -> Mapping[str, object]:
        """Everything that decides the bytes of the output besides the sources."""

    def set_up(self) -> None:
        """Load what all units of a worker share, such as a model; nothing by default."""

    @abstractmethod
    def run(self, unit: Unit, folder: Path) -> UnitResult:
        """Write the unit's files into `folder`, laid out as in the output folder; no rows, no file.

        The bytes depend on nothing but unit and options.
        """

    def finish(self, folder: Path, units: Sequence[FinishedUnit]) -> None:
        """Describe the output as a whole, once all units are in place; nothing by default."""


@dataclass(frozen=True)
class JobSummary:
    """Totals of a job; `rejects` counts by reason."""

    units: int
    files: int
    rows: int
    seconds: float
    codes: int
    bytes: int
    ignored: int
    rejects: dict[str, int]

    @classmethod
    def of(cls, units: Sequence[FinishedUnit], ignored: int) -> JobSummary:
        """Totals of `units` in their order, and the number of files that were passed over."""
        results = [finished.result for finished in units]
        reasons = Counter(reject.reason for result in results for reject in result.rejects)
        return cls(
            units=len(units),
            files=sum(bool(finished.files) for finished in units),
            rows=sum(result.rows for result in results),
            seconds=sum(result.seconds for result in results),
            codes=sum(result.codes for result in results),
            bytes=sum(file.bytes for finished in units for file in finished.files),
            ignored=ignored,
            rejects=dict(sorted(reasons.items())),
        )
