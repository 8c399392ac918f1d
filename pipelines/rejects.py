"""Inputs that gave no output, and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from codectok.errors import AudioError
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
REJECTS_FOLDER = "_codectok/rejects"
MESSAGE_LENGTH = 200
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
    """A stretch of a source that gives no output; times in seconds, the duration is None where nobody knows it."""

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


def write_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    """Write one row per reject to a Parquet file."""
    pq.write_table(pa.Table.from_pylist([asdict(reject) for reject in rejects], schema=SCHEMA), path)


def read_rejects(storage: Storage, limit: int | None = None) -> Iterator[Reject]:
    """The rejects of a job in the order of its units, at most `limit` of them."""
    found = (reject for name in storage.sizes(REJECTS_FOLDER) for reject in parse_rejects(storage.read(name)))
    return itertools.islice(found, limit)


def parse_rejects(data: bytes) -> list[Reject]:
    """The rejects in the bytes of a file that `write_rejects` has written; `pa.ArrowException` if it has not."""
    table = pq.read_table(pa.BufferReader(data))
    if not table.schema.equals(SCHEMA):
        raise pa.ArrowInvalid("it has other columns than rejects have")
    return [Reject(**row) for row in table.to_pylist()]


def rejects_name(unit: int) -> str:
    """Where the rejects of a unit are, if there are any."""
    return f"{REJECTS_FOLDER}/{unit:06d}.parquet"
