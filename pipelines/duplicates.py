"""Recordings that hold the same samples as another one: a first pass over the corpus, and the list that it leads to."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from codectok.audio.files import stream_audio
from codectok.errors import AudioError
from codectok.storage import Storage

from .job import TableJob, UnitOutput
from .listing import JOB_FOLDER
from .plan import Unit
from .recordings import recordings_of

DUPLICATES_FILE = f"{JOB_FOLDER}/duplicates.parquet"
DUPLICATES_SCHEMA = pa.schema(
    [("dataset", pa.string()), ("key", pa.string()), ("seconds", pa.float64()), ("same_as", pa.string())]
)


@dataclass(frozen=True)
class Duplicate:
    """A recording that is left out: how long it is, and which one it equals."""

    seconds: float
    same_as: str


class HashJob(TableJob):
    """A row for each recording: the hash of its samples, whatever file they came in."""

    verb = "hash"
    row_name = "recordings"
    schema = pa.schema(
        [
            ("dataset", pa.string()),
            ("source", pa.string()),
            ("key", pa.string()),
            ("n_samples", pa.int64()),
            ("sha256", pa.string()),
        ]
    )

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate

    def options(self) -> Mapping[str, JsonValue]:
        """The rate at which samples are compared."""
        return {"sample_rate": self.sample_rate}

    def rows(self, unit: Unit, output: UnitOutput) -> Iterator[Mapping[str, Any]]:
        """Hashes; what cannot be decoded equals nothing, and is the next pass's to reject."""
        for recording in recordings_of(unit, None):
            digest, n_samples = hashlib.sha256(), 0
            try:
                with closing(stream_audio(recording.audio(), self.sample_rate, recording.where)) as blocks:
                    for block in blocks:
                        digest.update(block.tobytes())
                        n_samples += len(block)
            except AudioError:
                continue
            output.read(recording.dataset, n_samples / self.sample_rate)
            output.keep(recording.dataset, n_samples / self.sample_rate)
            yield {
                "dataset": recording.dataset,
                "source": recording.name,
                "key": recording.key,
                "n_samples": n_samples,
                "sha256": digest.hexdigest(),
            }


def write_duplicates(hashes: Storage, sample_rate: int) -> None:
    """From the output of a `HashJob`, write the list of all recordings but the first of equals beside it."""
    first: dict[str, str] = {}
    rows = []
    for name in hashes.sizes():
        if not name.startswith("part-"):
            continue
        # Units are in the order of the plan: an earlier generation, then an earlier name.
        for row in pq.read_table(pa.BufferReader(hashes.read(name))).to_pylist():
            same_as = first.setdefault(row["sha256"], f"{row['dataset']}/{row['source']}")
            if same_as != f"{row['dataset']}/{row['source']}":
                seconds = row["n_samples"] / sample_rate
                rows.append({"dataset": row["dataset"], "key": row["key"], "seconds": seconds, "same_as": same_as})
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=DUPLICATES_SCHEMA), buffer, compression="zstd")
    hashes.write(DUPLICATES_FILE, buffer.getvalue())


def read_duplicates(hashes: Storage) -> dict[tuple[str, str], Duplicate]:
    """The list by dataset and key."""
    table = pq.read_table(pa.BufferReader(hashes.read(DUPLICATES_FILE)))
    return {(row["dataset"], row["key"]): Duplicate(row["seconds"], row["same_as"]) for row in table.to_pylist()}
