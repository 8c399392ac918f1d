"""Inputs that gave no output, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from codectok.errors import AudioError

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
MESSAGE_LENGTH = 200
SCHEMA = pa.schema(
    [
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

    source: str
    start: float
    duration: float | None
    stage: str
    reason: Reason
    message: str

    @classmethod
    def of(cls, error: AudioError, source: str, stage: str) -> Reject:
        """A whole source that cannot be used."""
        reason = next(known for known in get_args(Reason) if known == error.reason)
        return cls(source, 0.0, None, stage, reason, str(error)[:MESSAGE_LENGTH])


def write_rejects(path: Path, rejects: tuple[Reject, ...]) -> None:
    """Write one row per reject to a Parquet file."""
    pq.write_table(pa.Table.from_pylist([asdict(reject) for reject in rejects], schema=SCHEMA), path)
