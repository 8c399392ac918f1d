"""Inputs that gave no output, and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from codectok.errors import AudioError
from codectok.names import JOB_FOLDER
from codectok.storage import Storage

Reason = Literal[
    "unreadable",
    "decode_error",
    "decoder_crash",
    "empty",
    "too_short",
    "too_long",
    "not_finite",
    "silent",
    "clipped",
    "duplicate",
    "unsupported",
    "filtered",
]
# Something is wrong with the input; the others say that it was not wanted.
ERRORS: frozenset[Reason] = frozenset(["unreadable", "decode_error", "decoder_crash", "not_finite"])
REJECTS_FOLDER = f"{JOB_FOLDER}/rejects"
MESSAGE_LENGTH = 200
# That are held in memory: somebody may ask for texts of many million rows that have none.
HELD_REJECTS = 1 << 16
BATCH_REJECTS = 1024
SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("source", pa.string()),
        ("start", pa.float64()),
        ("duration", pa.float64()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
    ]
)


@dataclass(frozen=True)
class Reject:
    """A span of a source that gives no output; times in seconds, the duration is None where nobody knows it."""

    dataset: str
    source: str
    start: float
    duration: float | None
    stage: str
    reason: Reason
    message: str

    @classmethod
    def of(
        cls, error: AudioError, dataset: str, source: str, stage: str, start: float = 0.0, duration: float | None = None
    ) -> Reject:
        """A source that cannot be used, or the rest of one."""
        reason = next(known for known in get_args(Reason) if known == error.reason)
        return cls(dataset, source, start, duration, stage, reason, str(error)[:MESSAGE_LENGTH])


class RejectsWriter:
    """Writes one row per reject to a Parquet file, some of them at a time; without rejects there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: list[Reject] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, reject: Reject) -> None:
        """Append a reject."""
        self._held.append(reject)
        if len(self._held) >= HELD_REJECTS:
            self._flush()

    def close(self) -> None:
        """Write what is held, and the end of the file."""
        if self._held:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._path, SCHEMA)
        self._writer.write_table(pa.Table.from_pylist([asdict(reject) for reject in self._held], schema=SCHEMA))
        self._held = []


def read_rejects(storage: Storage, limit: int | None = None) -> Iterator[Reject]:
    """The rejects of a job in the order of its units, at most `limit` of them."""
    found = (reject for name in storage.sizes(REJECTS_FOLDER) for reject in parse_rejects(storage.read(name)))
    return itertools.islice(found, limit)


def parse_rejects(data: bytes) -> Iterator[Reject]:
    """The rejects in the bytes of a file of `RejectsWriter`; `pa.ArrowException` if it is none."""
    file = pq.ParquetFile(pa.BufferReader(data))
    if not file.schema_arrow.equals(SCHEMA):
        raise pa.ArrowInvalid("it has other columns than rejects have")
    for batch in file.iter_batches(BATCH_REJECTS):
        yield from (Reject(**row) for row in batch.to_pylist())


def rejects_name(unit: int) -> str:
    """Where the rejects of a unit are, if there are any."""
    return f"{REJECTS_FOLDER}/{unit:06d}.parquet"
