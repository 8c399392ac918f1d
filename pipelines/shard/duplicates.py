"""Spans that hold the same samples as another one: a first pass hashes all spans, then duplicates are listed."""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Iterator, Mapping, Set
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from codectok.audio.files import stream_audio
from codectok.audio.sound import MIXED, SoundOptions
from codectok.audio.spans import Span
from codectok.errors import PASSING_REASONS, AudioError, damage_errors
from codectok.keys import make_key
from codectok.names import JOB_FOLDER
from codectok.pipelines.engine.job import Decision
from codectok.pipelines.engine.output.unit_files import parts_in_order, unit_of_part
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.table_job import TableJob
from codectok.sources.rejects import Reject
from codectok.sources.unused import Unused
from codectok.storage import Storage

from .recordings import RecordingSource, recordings_of

DUPLICATES_FILE = f"{JOB_FOLDER}/duplicates.parquet"
HASH_SCHEMA = pa.schema(
    [("name", pa.string()), ("key", pa.string()), ("n_samples", pa.int64()), ("sha256", pa.string())]
)
DUPLICATES_SCHEMA = pa.schema([("key", pa.string()), ("seconds", pa.float64()), ("same_as", pa.string())])


@dataclass(frozen=True)
class Duplicate:
    """A span that is left out: its duration in seconds, and the name of its first copy."""

    seconds: float
    same_as: str


def hash_job(
    sample_rate: int, sound: SoundOptions = MIXED, reading: Mapping[str, JsonValue] = MappingProxyType({})
) -> TableJob:
    """A job that writes a row for each span: the hash of its samples, decoded at `sample_rate` Hz by `sound`.

    `reading` are the options that say how sources are read, as in the other job.
    """
    options: dict[str, JsonValue] = {"sample_rate": sample_rate, **sound.values(), **reading}
    return TableJob("hash", partial(_hash_rows, sample_rate, sound), HASH_SCHEMA, options, "spans")


def _hash_rows(sample_rate: int, sound: SoundOptions, unit: Unit, output: UnitOutput) -> Iterator[Mapping[str, Any]]:
    """Hashes of all spans; the next pass rejects unreadable ones, and both passes try again what may pass."""
    for recording in recordings_of(unit, _PassingRejects(output), sound):
        for span, n_samples, digest in _hashes(recording, sample_rate, sound, output):
            output.read(recording.dataset, n_samples / sample_rate)
            output.keep(recording.dataset, n_samples / sample_rate)
            start = recording.offset + span.start
            channel = "" if recording.channel is None else f" (channel {recording.channel})"
            yield {
                "name": f"{recording.dataset}/{recording.name}{channel}" + (f" from {start:g} s on" if start else ""),
                "key": duplicate_key(recording, span),
                "n_samples": n_samples,
                "sha256": digest,
            }


class _PassingRejects:
    """Passes on the rejects of inputs that may be usable later, and counts nothing else."""

    def __init__(self, output: UnitOutput) -> None:
        self._output = output

    def read(self, dataset: str, seconds: float | None = None) -> None:
        """Count nothing."""

    def reject(self, reject: Reject) -> None:
        """Record the reject if it may pass."""
        if reject.reason in PASSING_REASONS:
            self._output.read(reject.dataset)
            self._output.reject(reject)

    def ignore(self, dataset: str, name: str) -> None:
        """Count nothing."""

    def leave_unused(self, dataset: str, unused: Unused) -> None:
        """Count nothing."""


def duplicate_key(recording: RecordingSource, span: Span) -> str:
    """Key of a span in the list of duplicates."""
    return make_key(recording.dataset, span.key)


def _hashes(
    recording: RecordingSource, sample_rate: int, sound: SoundOptions, output: UnitOutput
) -> Iterator[tuple[Span, int, str]]:
    """Yield each readable span of a recording, in order, with its number of samples and hash.

    All spans are hashed as the blocks come, so that only one block is held in memory, however much they overlap.
    """
    hashes = [_Hash(*span.sample_range(sample_rate)) for span in recording.spans]
    waiting = deque(hashes)
    running: list[_Hash] = []
    decoded = 0
    damage: AudioError | None = None
    try:
        own = sound.for_channel(recording.channel)
        with closing(stream_audio(recording.audio(), sample_rate, recording.where, sound=own)) as blocks:
            for block in blocks:
                end = decoded + len(block)
                while waiting and waiting[0].first < end:
                    running.append(waiting.popleft())
                for one in running:
                    one.update(block, decoded)
                running = [one for one in running if one.end is None or one.end > end]
                decoded = end
    except AudioError as error:
        damage = error  # spans that were complete before count
        _PassingRejects(output).reject(Reject.of(error, recording.dataset, recording.name, "read"))
    for span, one in zip(recording.spans, hashes, strict=True):
        # Damaged spans have no equal, since the end of them is unknown.
        complete = damage is None or (one.end is not None and one.end <= decoded)
        # Spans with text that are longer than the recording are rejected by the next pass.
        usable = span.text is None or span.is_within(decoded, sample_rate)
        if complete and one.n_samples and usable:
            yield span, one.n_samples, one.digest.hexdigest()


class _Hash:
    """Hash of the samples from `first` up to `end`, exclusive; None for the end of the recording."""

    def __init__(self, first: int, end: int | None) -> None:
        self.first, self.end = first, end
        self.n_samples = 0
        self.digest = hashlib.sha256()

    def update(self, block: np.ndarray, start: int) -> None:
        """Add a block [n] that starts at sample `start` of the recording."""
        samples = block[max(0, self.first - start) : None if self.end is None else self.end - start]
        self.digest.update(samples.tobytes())
        self.n_samples += len(samples)


def list_duplicates(hashes: Storage, sample_rate: int) -> Decision:
    """List all but the first of equal spans, from the output `hashes` of `hash_job`.

    Units change that have a span in one of the stored and the new list only, or there with another first copy.
    """
    first: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for name in parts_in_order(hashes.sizes()):
        for row in _rows(hashes, name, HASH_SCHEMA):
            if row["sha256"] in first:
                same_as, seconds = first[row["sha256"]], row["n_samples"] / sample_rate
                rows.append({"key": row["key"], "seconds": seconds, "same_as": same_as})
            else:
                first[row["sha256"]] = row["name"]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=DUPLICATES_SCHEMA), buffer, compression="zstd")
    before = read_duplicates(hashes) if DUPLICATES_FILE in hashes.sizes() else {}
    after = {row["key"]: Duplicate(row["seconds"], row["same_as"]) for row in rows}
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    return Decision(DUPLICATES_FILE, buffer.getvalue(), _units_of(hashes, changed))


def _units_of(hashes: Storage, keys: Set[str]) -> set[int]:
    """Units whose spans have one of `keys`."""
    found = set()
    for name in parts_in_order(hashes.sizes()) if keys else ():
        table = pq.read_table(pa.BufferReader(hashes.read(name)), columns=["key"])
        if not keys.isdisjoint(table["key"].to_pylist()):
            found.add(unit_of_part(name))
    return found


def read_duplicates(hashes: Storage) -> dict[str, Duplicate]:
    """Read the list of duplicates, by `duplicate_key`."""
    rows = _rows(hashes, DUPLICATES_FILE, DUPLICATES_SCHEMA)
    return {row["key"]: Duplicate(row["seconds"], row["same_as"]) for row in rows}


def _rows(hashes: Storage, name: str, schema: pa.Schema) -> list[dict[str, Any]]:
    data = hashes.read(name)
    with damage_errors(f"{hashes.url}/{name}", "remove it, and run the same command again"):
        table = pq.read_table(pa.BufferReader(data))
        if not table.schema.equals(schema):
            raise ValueError("it has other columns")
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows
