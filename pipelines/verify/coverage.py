"""Time of each recording that a unit of `shard` or `tokenize` has written or rejected."""

from __future__ import annotations

import math
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from codectok.errors import VerificationError, damage_errors
from codectok.pipelines.engine.output.records import UnitRecord
from codectok.pipelines.engine.output.verify_rejects import verified_rejects
from codectok.storage import Storage

from .intervals import Interval

COLUMNS = ["dataset", "source", "start", "duration"]

RecordingName = tuple[str, str]
"""Dataset and source of a recording."""


class _Place(BaseModel):
    """Place of a row of output in its recording."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    dataset: str
    source: str
    start: float
    duration: float


@dataclass
class Covered:
    """Time of a recording that is written or rejected.

    Attributes:
        intervals: in any order; they may overlap.
        unknown_from: start of the first reject of unknown duration; infinite without one.
    """

    intervals: list[Interval] = field(default_factory=list)
    unknown_from: float = math.inf

    def add(self, start: float, duration: float | None) -> None:
        """Add a row or a reject."""
        if duration is None:
            self.unknown_from = min(self.unknown_from, start)
        else:
            self.intervals.append(Interval(start, start + duration))


def coverage_of_unit(storage: Storage, record: UnitRecord) -> dict[RecordingName, Covered]:
    """Read the rows and rejects of a unit.

    Raises:
        VerificationError: a file is damaged.
    """
    found: dict[RecordingName, Covered] = {}
    for file in record.files:
        if "/" not in file.name and file.name.endswith((".tar", ".parquet")):
            places = _places_in_tar if file.name.endswith(".tar") else _places_in_table
            with damage_errors(
                f"{storage.url}/{file.name}", "run its job again into another folder", VerificationError
            ):
                for place in places(storage, file.name):
                    found.setdefault((place.dataset, place.source), Covered()).add(place.start, place.duration)
    for reject in verified_rejects(storage, record):
        if reject.reason == "invalid_row":  # it names no time of the recording
            continue
        found.setdefault((reject.dataset, reject.source), Covered()).add(reject.start, reject.duration)
    return found


def _places_in_tar(storage: Storage, name: str) -> Iterator[_Place]:
    with storage.open(name) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every member
            if member.name.endswith(".json"):
                opened = tar.extractfile(member)
                yield _Place.model_validate_json(b"" if opened is None else opened.read())


def _places_in_table(storage: Storage, name: str) -> Iterator[_Place]:
    with storage.open(name) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
        for batch in file.iter_batches(columns=COLUMNS, use_threads=False):
            yield from (_Place(**row) for row in batch.to_pylist())
