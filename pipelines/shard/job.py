"""Job `shard`: cuts recordings into segments and writes them as WebDataset tars."""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from pydantic import JsonValue

from codectok.audio import speech
from codectok.errors import AudioError
from codectok.pipelines.engine.job import Example, Job, UnitOutput, UnitRecord
from codectok.pipelines.engine.plan import Unit
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
from codectok.sources.rejects import Reject
from codectok.storage import Storage

from .cutter import RecordingCutter
from .duplicates import Duplicate, HashJob, duplicate_key, read_duplicates, write_duplicates
from .options import ShardOptions
from .recordings import RecordingSource, recordings_of

# FLAC compresses to about two thirds; both include the JSON.
FLAC_BYTES_PER_SAMPLE, WAV_BYTES_PER_SAMPLE = 1.4, 2.1
EXAMPLES = 10


class ShardJob(Job):
    """Cuts the sources of a unit into segments and writes them into one tar."""

    verb = "shard"
    row_name = "segments"
    bytes_version = 2

    def __init__(self, options: ShardOptions) -> None:
        self.settings = options
        self._hashes: Storage | None = None
        self._duplicates: dict[str, Duplicate] = {}
        per_sample = FLAC_BYTES_PER_SAMPLE if options.format == "flac" else WAV_BYTES_PER_SAMPLE
        self.output_bytes_per_second = per_sample * options.sample_rate

    def options(self) -> Mapping[str, JsonValue]:
        """Return all fields of `ShardOptions`."""
        values = asdict(self.settings)
        return values | values.pop("quality")

    @property
    def unit_seconds(self) -> float:
        """Audio of a tar in seconds."""
        return self.settings.shard_seconds

    @property
    def validation(self) -> float:
        """Share of the files that are held out."""
        return self.settings.validation

    def first_pass(self) -> HashJob | None:
        """The job that hashes all samples, if duplicates are left out."""
        return HashJob(self.settings.sample_rate) if self.settings.deduplicate else None

    def use_first_pass(self, output: Storage) -> None:
        """Write the list of duplicates from the hashes."""
        write_duplicates(output, self.settings.sample_rate)
        self._hashes = output

    def set_up(self) -> None:
        """Load the list of duplicates, and check that speech can be detected."""
        if self.settings.segmenter == "vad":
            speech.check_installed()
        if self._hashes is not None:
            self._duplicates = read_duplicates(self._hashes)

    def run(self, unit: Unit, output: UnitOutput) -> None:
        """Write `shard-NNNNNN.tar` and its index."""
        path = output.folder / f"shard-{unit.number:06d}.tar"
        with ShardWriter(path, self.settings.format) as writer:
            for recording in recordings_of(unit, output):
                new = self._without_duplicates(recording, output)
                if new.spans:
                    RecordingCutter(self.settings, new, writer, output).run()
        if not writer.index:
            path.unlink()
            return
        index = index_path(output.folder, path.name)
        index.parent.mkdir(parents=True)
        write_index(index, writer.index)

    def _without_duplicates(self, recording: RecordingSource, output: UnitOutput) -> RecordingSource:
        """Return the recording without spans that are duplicates, which are rejected."""
        new = []
        for span in recording.spans:
            same = self._duplicates.get(duplicate_key(recording, span))
            if same is None:
                new.append(span)
                continue
            error = AudioError(f"It holds the same samples as {same.same_as}.", "duplicate")
            start = recording.offset + span.start
            output.read(recording.dataset, same.seconds)
            output.reject(Reject.of(error, recording.dataset, recording.name, "read", start, same.seconds))
        return replace(recording, spans=tuple(new))

    def examples(self, storage: Storage, records: Sequence[UnitRecord]) -> list[Example]:
        """Choose ten segments at random with a fixed seed."""
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
            found.append(Example(f"{sample['key']} in {name}", f"audio/{self.settings.format}", data))
        return found

    def finish(self, storage: Storage, records: Sequence[UnitRecord]) -> Sequence[str]:
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
        manifest = ShardManifest(sample_rate=self.settings.sample_rate, shards=tuple(entries))
        storage.write(MANIFEST_FILE, manifest.model_dump_json(indent=2).encode() + b"\n")
        return [MANIFEST_FILE]
