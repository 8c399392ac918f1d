"""Rejects: inputs without output, and why they have none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from codectok.errors import PASSING_REASONS, AudioError, Reason, damage_errors
from codectok.names import JOB_FOLDER, shortened, writable
from codectok.storage import Storage

from .source import Source

# The input is broken. Inputs with the other reasons were not wanted.
ERRORS: frozenset[Reason] = PASSING_REASONS | frozenset[Reason](
    ["unreadable", "invalid_row", "decode_error", "decoder_crash", "not_finite", "too_large", "unexpected_error"]
)
REJECTS_FOLDER = f"{JOB_FOLDER}/rejects"
MESSAGE_LENGTH = 200
NAME_LENGTH = 1024  # longer names of sources are shortened
REST_STAGE = "rest"  # of the end of a clip whose beginning is a row
# In memory at most: a text source may have many million rows without text.
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


def name_in_rejects(source: str) -> str:
    """Return the name of a source as rejects have it."""
    return writable(shortened(source, NAME_LENGTH))


def is_within(name: str, container: str) -> bool:
    """Return True if `name`, as rejects have it, is that of a sample or row of a container."""
    return name.startswith(writable(f"{container}/")[:NAME_LENGTH])


@dataclass(frozen=True)
class Reject:
    """A span of a source without output; times in seconds, `duration` is None if unknown."""

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
        """Reject a source, or the rest of one, because of `error`."""
        message = writable(str(error)[:MESSAGE_LENGTH])
        return cls(dataset, name_in_rejects(source), start, duration, stage, error.reason, message)

    @classmethod
    def in_container(cls, error: AudioError, container: Source, member: str | None = None) -> Reject:
        """Reject a tar or Parquet file, or the sample or row `member` of it."""
        name = container.name if member is None else f"{container.name}/{member}"
        return cls.of(error, container.dataset, name, "read")


class RejectsWriter:
    """Writes a Parquet file with a row per reject, in batches; writes no file if there are no rejects."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: list[Reject] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, reject: Reject) -> None:
        """Add a row."""
        self._held.append(reject)
        if len(self._held) >= HELD_REJECTS:
            self._flush()

    def close(self) -> None:
        """Write the last batch and the end of the file."""
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
    """Read the rejects of a job in the order of its units, at most `limit` of them."""

    def found() -> Iterator[Reject]:
        for name in storage.sizes(REJECTS_FOLDER):
            with damage_errors(f"{storage.url}/{name}", "run the job again into another folder"):
                rejects = list(parse_rejects(storage.read(name)))
            yield from rejects

    return itertools.islice(found(), limit)


def parse_rejects(data: bytes) -> Iterator[Reject]:
    """Parse a file of `RejectsWriter`; raises `pa.ArrowException` if `data` is not one."""
    file = pq.ParquetFile(pa.BufferReader(data))
    if not file.schema_arrow.equals(SCHEMA):
        raise pa.ArrowInvalid("its columns are not the columns of rejects")
    for batch in file.iter_batches(BATCH_REJECTS):
        yield from (Reject(**row) for row in batch.to_pylist())
