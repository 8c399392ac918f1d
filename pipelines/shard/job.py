"""Job `shard`: cuts recordings into segments, and writes them into WebDataset tars."""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from pydantic import JsonValue

from codectok.choices import AudioFormat
from codectok.errors import AudioError
from codectok.phases import READING, WRITING
from codectok.pipelines.engine.job import Example, FirstPass, Job, JobReporter, RunUnit, WorkerContext
from codectok.pipelines.engine.output.records import Counts, UnitRecord
from codectok.pipelines.engine.output.unit_files import shard_name
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.cutting import CuttingPolicy
from codectok.pipelines.engine.planning.reading import READING_OPTIONS, reading_options
from codectok.pipelines.engine.planning.unit import Unit
from codectok.shards import (
    MANIFEST_FILE,
    ShardEntry,
    ShardManifest,
    ShardWriter,
    index_name,
    index_path,
    parse_index,
    write_index,
)
from codectok.sources.clips import UnusedSound
from codectok.sources.listing.sources import Listing
from codectok.sources.parquet.check import check_audio_columns
from codectok.sources.rejects import Reject
from codectok.storage import Storage

from .cutter import RecordingCutter
from .duplicates import Duplicate, duplicate_key, hash_job, list_duplicates, read_duplicates
from .options import ShardOptions
from .recordings import RecordingSource, recordings_of
from .verify import ShardVerifier

# FLAC compresses to about two thirds; the rest is JSON.
FLAC_BYTES_PER_SAMPLE, WAV_BYTES_PER_SAMPLE = 1.4, 2.1
EXAMPLES = 10


class ShardJob(Job):
    """Cuts the sources of a unit into segments and writes them into one tar."""

    verb = "shard"
    row_name = "segments"
    # 3: all audio before damage is kept. 4: columns of Parquet with one name in and beside a struct are both kept, and
    # more formats are found in binary columns.
    bytes_version = 4
    verifier = ShardVerifier

    def __init__(self, options: ShardOptions) -> None:
        self.settings = options
        per_sample = FLAC_BYTES_PER_SAMPLE if options.format == "flac" else WAV_BYTES_PER_SAMPLE
        self.output_bytes_per_second = per_sample * options.sample_rate

    def options(self) -> Mapping[str, JsonValue]:
        """All fields of `ShardOptions`."""
        values: dict[str, Any] = asdict(self.settings)
        for field in READING_OPTIONS:
            del values[field]
        quality: dict[str, Any] = values.pop("quality")
        del values["sound"]
        return values | quality | self.settings.sound.values() | self._reading

    @property
    def _reading(self) -> dict[str, JsonValue]:
        return reading_options(**{name: getattr(self.settings, name) for name in READING_OPTIONS})

    def check_sources(self, listing: Listing) -> None:
        """Raise an `InputError` if the audio column of Parquet files is unknown."""
        check_audio_columns(listing, self.settings.audio_column)

    @property
    def cutting(self) -> CuttingPolicy:
        """Units of `shard_seconds`, some of them for validation."""
        return CuttingPolicy(self.settings.shard_seconds, self.settings.validation)

    @property
    def first_pass(self) -> FirstPass | None:
        """Hashes of all samples, if duplicates are left out."""
        if not self.settings.deduplicate:
            return None
        rate = self.settings.sample_rate
        hashes = hash_job(rate, self.settings.sound, self._reading)
        return FirstPass(hashes, partial(list_duplicates, sample_rate=rate))

    @property
    def reporter(self) -> JobReporter:
        """Writes `shards.json`, and chooses segments to listen to."""
        return ShardReporter(self.settings.sample_rate, self.settings.format)

    def check_machine(self) -> None:
        """Raise a `CodectokError` if the machine lacks a package."""
        self.settings.check_packages()

    def start(self, context: WorkerContext) -> RunUnit:
        """Load the list of duplicates."""
        self.settings.check_packages()
        duplicates = {} if context.first_pass is None else read_duplicates(context.first_pass)
        return partial(self._write_shard, duplicates)

    def _write_shard(self, duplicates: Mapping[str, Duplicate], unit: Unit, output: UnitOutput) -> None:
        """Write `shard-NNNNNN.tar` and its index."""
        path = output.folder / shard_name(unit.number)
        unused = UnusedSound(output, self.settings.sound)
        with ShardWriter(path, self.settings.format) as writer:
            for recording in output.clock.steps(READING, recordings_of(unit, output, self.settings.sound)):
                new = _without_duplicates(recording, duplicates, output)
                if new.spans:
                    RecordingCutter(self.settings, new, writer, output, unused).run()
        if not writer.index:
            path.unlink()
            return
        output.clock.switch(WRITING)
        index = index_path(output.folder, path.name)
        index.parent.mkdir(parents=True)
        write_index(index, writer.index)


def _without_duplicates(
    recording: RecordingSource, duplicates: Mapping[str, Duplicate], output: UnitOutput
) -> RecordingSource:
    """The recording with its new spans only; duplicates are rejected."""
    new = []
    for span in recording.spans:
        same = duplicates.get(duplicate_key(recording, span))
        if same is None:
            new.append(span)
            continue
        error = AudioError(f"It holds the same samples as {same.same_as}.", "duplicate")
        start = recording.offset + span.start
        output.read(recording.dataset, same.seconds)
        output.reject(Reject.of(error, recording.dataset, recording.name, "read", start, same.seconds))
    return replace(recording, spans=tuple(new))


class ShardReporter(JobReporter):
    """Writes the manifest of finished shards, and chooses segments for the report."""

    def __init__(self, sample_rate: int, audio_format: AudioFormat) -> None:
        self._sample_rate, self._format = sample_rate, audio_format

    def examples(self, storage: Storage, records: Sequence[UnitRecord]) -> list[Example]:
        """Ten segments, chosen at random with a fixed seed."""
        tars = [(record, file.name) for record in records for file in record.files if file.name.endswith(".tar")]
        ends = list(itertools.accumulate(record.total.rows for record, _ in tars))
        chosen = random.Random(0).sample(range(ends[-1]), min(EXAMPLES, ends[-1])) if ends else []
        found = []
        for number in sorted(chosen):
            place = bisect.bisect_right(ends, number)
            name = tars[place][1]
            row = number - (ends[place - 1] if place else 0)
            sample = parse_index(storage.read(index_name(name))).slice(row, 1).to_pylist()[0]
            with storage.open(name) as file:
                file.seek(sample["offset"])
                data = file.read(sample["size"])
            found.append(Example(f"{sample['key']} in {name}", f"audio/{self._format}", data))
        return found

    def write_files(self, storage: Storage, records: Sequence[UnitRecord], total: Counts) -> Sequence[str]:
        """Write `shards.json`."""
        entries = [
            ShardEntry(
                name=file.name,
                samples=record.total.rows,
                seconds=record.total.seconds,
                bytes=file.bytes,
                sha256=file.sha256,
                split=record.split,
                categories=record.categories,
            )
            for record in records
            for file in record.files
            if file.name.endswith(".tar")
        ]
        manifest = ShardManifest(sample_rate=self._sample_rate, shards=tuple(entries))
        storage.write(MANIFEST_FILE, manifest.model_dump_json(indent=2).encode() + b"\n")
        return [MANIFEST_FILE]
