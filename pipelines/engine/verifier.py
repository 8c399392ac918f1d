"""Checks of a job's output beyond hashes, records and rejects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from codectok.pipelines.engine.output.records import UnitRecord
from codectok.pipelines.engine.planning.plan import Plan
from codectok.storage import Storage


@dataclass(frozen=True)
class Verified:
    """Amount of output that was checked and is right.

    Attributes:
        units: number of units; None for a table without a plan.
        files: number of files.
        bytes: size of the files.
        rows: rows of output.
        seconds: audio in the output.
        verb: job that wrote the output; None for a table without a plan.
        contents: True if the contents of files were checked; False if only hashes, records and rejects were, since the
            job names no verifier.
    """

    units: int | None
    files: int
    bytes: int
    rows: int
    seconds: float
    verb: str | None = None
    contents: bool = True


class OutputVerifier(ABC):
    """Checks the contents of a job's output; its job names it as `verifier`.

    `check` is called for every file outside of the job's own folder, in any order and from several threads; `finish`
    once after all of them. Both raise a `VerificationError` that names the first wrong place.

    Attributes:
        described_files: files of the output that belong to the whole and to no unit.
    """

    described_files: ClassVar[tuple[str, ...]] = ()

    def __init__(self, storage: Storage, plan: Plan, records: Sequence[UnitRecord]) -> None:
        self.storage, self.plan, self.records = storage, plan, records

    @classmethod
    def files_about_the_whole(cls, storage: Storage) -> Collection[str]:
        """Return the names of files of the output that belong to no unit; `described_files` by default."""
        return cls.described_files

    @abstractmethod
    def check(self, record: UnitRecord, name: str) -> None:
        """Check the file `name`, which the unit of `record` wrote."""

    def finish(self) -> None:
        """Check properties of the whole that no file shows alone; nothing by default."""
