"""`shard`: recordings of any length into segments, in WebDataset tars."""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace

import numpy as np
from pydantic import JsonValue

from codectok.audio import dnsmos, speech
from codectok.audio.files import AudioFormat, stream_audio
from codectok.audio.quality import Quality, QualityLimits
from codectok.audio.segments import Cutter, Segment, Segmenter, check_limits, segments_of
from codectok.audio.speech import SPEECH_RATE, speech_in
from codectok.audio.stretches import Recording, Stretch, cut_between_parts, join_short
from codectok.errors import AudioError, InputError
from codectok.keys import make_key
from codectok.shards import (
    MANIFEST_FILE,
    Sample,
    ShardEntry,
    ShardManifest,
    ShardWriter,
    index_name,
    index_path,
    parse_index,
    write_index,
)
from codectok.storage import Storage

from .duplicates import Duplicate, HashJob, read_duplicates, write_duplicates
from .job import Example, Job, UnitOutput, UnitRecord
from .plan import Unit
from .planning import check_unit_seconds
from .recordings import RecordingSource, recordings_of
from .rejects import Reject

SAMPLE_RATES = range(8000, 192_001)
# Compressed to about two thirds by FLAC, and the JSON beside it.
FLAC_BYTES_PER_SAMPLE, WAV_BYTES_PER_SAMPLE = 1.4, 2.1
# A manifest may round the end of a file so far up.
END_TOLERANCE_SECONDS = 0.1
NO_LIMITS = QualityLimits()
EXAMPLES = 10


@dataclass(frozen=True)
class ShardOptions:
    """How segments are cut, which are kept, and how they are written.

    Attributes:
        min_seconds, max_seconds: length of a segment.
        sample_rate: of segments in Hz.
        segmenter: "quiet" (cuts at the quietest points), "fixed" (all of the greatest length) or "vad" (only speech;
            its stretches are joined and cut to fit).
        format: of the audio files in the tars.
        shard_seconds: estimated audio of one tar.
        validation: share of the files whose segments are kept apart for validation.
        deduplicate: leave out recordings whose samples equal those of another one, anywhere in the corpus.
        quality: limits on segments.
    """

    min_seconds: float = 2.0
    max_seconds: float = 10.0
    sample_rate: int = 24_000
    segmenter: Segmenter = "quiet"
    format: AudioFormat = "flac"
    shard_seconds: float = 3600.0
    validation: float = 0.0
    deduplicate: bool = False
    quality: QualityLimits = NO_LIMITS

    def __post_init__(self) -> None:
        check_limits(self.min_seconds, self.max_seconds, self.segmenter)
        if self.sample_rate not in SAMPLE_RATES:
            raise InputError(
                f"A sample rate of {self.sample_rate} Hz is impossible; give one from {SAMPLE_RATES[0]} to"
                f" {SAMPLE_RATES[-1]} Hz."
            )
        if self.segmenter == "vad":
            speech.check_installed()
        if self.quality.min_dnsmos is not None:
            dnsmos.check_installed()
        check_unit_seconds(self.shard_seconds)
        if not 0 <= self.validation < 1:
            raise InputError(f"The share for validation is a number from 0 to below 1, not {self.validation:g}.")


class ShardJob(Job):
    """Cuts the sources of a unit into segments and writes them into one tar."""

    verb = "shard"
    row_name = "segments"
    bytes_version = 1

    def __init__(self, options: ShardOptions) -> None:
        self.settings = options
        self._hashes: Storage | None = None
        self._duplicates: dict[tuple[str, str], Duplicate] = {}
        per_sample = FLAC_BYTES_PER_SAMPLE if options.format == "flac" else WAV_BYTES_PER_SAMPLE
        self.output_bytes_per_second = per_sample * options.sample_rate

    def options(self) -> Mapping[str, JsonValue]:
        """All of `ShardOptions`."""
        values = asdict(self.settings)
        return values | values.pop("quality")

    @property
    def unit_seconds(self) -> float:
        """Audio of a tar."""
        return self.settings.shard_seconds

    @property
    def validation(self) -> float:
        """Share of the files that are kept apart."""
        return self.settings.validation

    def first_pass(self) -> HashJob | None:
        """Hashes of all samples, where duplicates are to be left out."""
        return HashJob(self.settings.sample_rate) if self.settings.deduplicate else None

    def use_first_pass(self, output: Storage) -> None:
        """Find the duplicates."""
        write_duplicates(output, self.settings.sample_rate)
        self._hashes = output

    def set_up(self) -> None:
        """Load the list of duplicates, and what hears speech."""
        if self.settings.segmenter == "vad":
            speech.check_installed()
        if self._hashes is not None:
            self._duplicates = read_duplicates(self._hashes)

    def run(self, unit: Unit, output: UnitOutput) -> None:
        """Write `shard-NNNNNN.tar` and its index."""
        path = output.folder / f"shard-{unit.number:06d}.tar"
        with ShardWriter(path, self.settings.format) as writer:
            for recording in recordings_of(unit, output):
                same = self._duplicates.get((recording.dataset, recording.key))
                if same is not None:
                    _reject_duplicate(recording, same, output)
                else:
                    _Sharder(self.settings, recording, writer, output).run()
        if not writer.index:
            path.unlink()
            return
        index = index_path(output.folder, path.name)
        index.parent.mkdir(parents=True)
        write_index(index, writer.index)

    def examples(self, storage: Storage, records: Sequence[UnitRecord]) -> list[Example]:
        """Ten segments, chosen at random and always the same."""
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
            )
            for record in records
            for file in record.files
            if file.name.endswith(".tar")
        ]
        manifest = ShardManifest(sample_rate=self.settings.sample_rate, shards=tuple(entries))
        storage.write(MANIFEST_FILE, manifest.model_dump_json(indent=2).encode() + b"\n")
        return [MANIFEST_FILE]


def _reject_duplicate(recording: RecordingSource, same: Duplicate, output: UnitOutput) -> None:
    error = AudioError(f"It holds the same samples as {same.same_as}.", "duplicate")
    output.read(recording.dataset, same.seconds)
    output.reject(Reject.of(error, recording.dataset, recording.name, "read", recording.offset, duration=same.seconds))


class _Sharder:
    """Cuts one recording."""

    def __init__(
        self, settings: ShardOptions, source: RecordingSource, writer: ShardWriter, output: UnitOutput
    ) -> None:
        self._settings, self._source, self._writer, self._output = settings, source, writer, output
        self._rate = settings.sample_rate
        self._done = 0  # samples of the recording up to here are written or rejected
        self._cutter: Cutter = "fixed" if settings.segmenter == "fixed" else "quiet"

    def run(self) -> None:
        """Write all segments; what cannot be decoded from some point on is rejected from there."""
        settings = self._settings
        pending = deque(self._source.stretches)
        try:
            if settings.segmenter == "vad":
                pending = deque(self._speech())
            stretches = cut_between_parts(pending, settings.max_seconds)
            pending = deque(join_short(stretches, settings.min_seconds, settings.max_seconds))
            starts = [round(stretch.start * self._rate) for stretch in pending]
            with closing(stream_audio(self._source.audio(), self._rate, self._source.where)) as blocks:
                recording = Recording(blocks, self._rate, starts)
                while pending:
                    self._cut(pending[0], recording)
                    pending.popleft()
        except AudioError as error:
            if self._source.may_be_anything and self._done == 0 and error.reason in ("unreadable", "empty"):
                self._output.ignore(self._source.dataset)
                return
            for stretch in pending:
                self._lose(stretch, error)

    def _cut(self, stretch: Stretch, recording: Recording) -> None:
        """Write the segments of a stretch."""
        settings, rate = self._settings, self._rate
        first = self._done = round(stretch.start * rate)
        end = _samples(stretch.end, rate)
        blocks = recording.take(end)
        segments = (
            segments_of(blocks, rate, settings.min_seconds, settings.max_seconds, self._cutter)
            if stretch.text is None
            else _uncut(blocks, round(settings.max_seconds * rate))
        )
        for segment in segments:
            moved = Segment(segment.start + first, segment.samples)
            self._write(moved, stretch)
            self._done = moved.end
        if end is not None and self._done < end - round(END_TOLERANCE_SECONDS * rate):
            raise AudioError(
                f"{self._source.where} ends at {recording.n_samples / rate:.2f} s, before the stretch from"
                f" {stretch.start:g} to {stretch.end:g} s does.",
                "unreadable",
            )
        self._output.read(self._source.dataset, (self._done - first) / rate)

    def _speech(self) -> list[Stretch]:
        """The stretches with text, and the speech in the others; what lies between is rejected."""
        listened = [stretch for stretch in self._source.stretches if stretch.text is None]
        starts = [round(stretch.start * SPEECH_RATE) for stretch in listened]
        speech, silence = [], []
        with closing(stream_audio(self._source.audio(), SPEECH_RATE, self._source.where)) as blocks:
            recording = Recording(blocks, SPEECH_RATE, starts)
            for stretch in listened:
                found, seconds = speech_in(recording.take(_samples(stretch.end, SPEECH_RATE)))
                speech += [replace(stretch, start=stretch.start + a, end=stretch.start + b) for a, b in found]
                borders = [0.0, *itertools.chain(*found), seconds]
                pauses = zip(borders[::2], borders[1::2], strict=True)
                silence += [(stretch.start + a, stretch.start + b) for a, b in pauses]
        for start, end in silence:
            if end > start:
                self._output.read(self._source.dataset, end - start)
                self._reject(AudioError("Nobody speaks.", "filtered"), start, end - start, "segment")
        with_text = [stretch for stretch in self._source.stretches if stretch.text is not None]
        return sorted([*speech, *with_text], key=lambda stretch: stretch.start)

    def _lose(self, stretch: Stretch, error: AudioError) -> None:
        """Reject what is not yet done of a stretch."""
        first = round(stretch.start * self._rate)
        start = max(self._done, first) / self._rate
        seconds = None if stretch.end is None else max(0.0, stretch.end - start)
        self._output.read(self._source.dataset, start - first / self._rate + (seconds or 0.0))
        self._reject(error, start, seconds, "decode")
        self._done = 0  # of the next stretch nothing is

    def _write(self, segment: Segment, stretch: Stretch) -> None:
        """Write a segment, or reject it."""
        settings, source, rate = self._settings, self._source, self._rate
        seconds = len(segment.samples) / rate
        start = segment.start / rate
        try:
            if len(segment.samples) < round(settings.min_seconds * rate):
                raise AudioError(f"{seconds:.2f} s are less than {settings.min_seconds:g} s.", "too_short")
            if len(segment.samples) > round(settings.max_seconds * rate):
                message = f"{seconds:.2f} s with one text are more than {settings.max_seconds:g} s and cannot be cut."
                raise AudioError(message, "too_long")
            quality = Quality.within(settings.quality, segment.samples, rate)
        except AudioError as error:
            self._reject(error, start, seconds, "segment")
            return
        labels = stretch.labels
        description = Sample(
            dataset=source.dataset,
            source=source.name,
            start=source.offset + start,
            duration=seconds,
            sample_rate=rate,
            n_samples=len(segment.samples),
            loudness=quality.loudness,
            bandwidth=quality.bandwidth,
            dnsmos=quality.dnsmos,
            id=stretch.id,
            text=stretch.text,
            language=labels.language,
            speaker=labels.speaker,
            category=labels.category,
        )
        self._writer.write(self._key(stretch, segment.start), segment.samples, description)
        self._output.keep(source.dataset, seconds)
        self._output.observe("duration", math.floor(seconds))
        self._output.observe("bandwidth", quality.bandwidth // 1000)
        if quality.loudness is not None:
            self._output.observe("loudness", math.floor(quality.loudness))

    def _key(self, stretch: Stretch, start: int) -> str:
        path = self._source.key
        if stretch.start or stretch.end is not None:
            # Stretches may overlap, so that a start alone does not tell segments apart.
            path += f"#{stretch.id or f'{stretch.start:g}-{stretch.end or 0.0:g}'}"
        return make_key(self._source.dataset, path, start)

    def _reject(self, error: AudioError, start: float, seconds: float | None, stage: str) -> None:
        source = self._source
        self._output.reject(Reject.of(error, source.dataset, source.name, stage, source.offset + start, seconds))


def _samples(seconds: float | None, rate: int) -> int | None:
    return None if seconds is None else round(seconds * rate)


def _uncut(blocks: Iterator[np.ndarray], longest: int) -> Iterator[Segment]:
    """The whole of a stretch as one segment; of one that is too long anyway no more than its length is true."""
    held, n_samples = [], 0
    for block in blocks:
        if n_samples <= longest:
            held.append(block)
        n_samples += len(block)
    if n_samples > longest:
        yield Segment(0, np.broadcast_to(np.float32(0), n_samples))
    elif n_samples:
        yield Segment(0, np.concatenate(held))
