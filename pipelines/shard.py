"""`shard`: audio files into WebDataset tars of segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from codectok.atomic import write_text
from codectok.audio.files import AudioFormat, read_audio
from codectok.audio.loudness import integrated_loudness
from codectok.audio.segments import Segmenter, check_limits, cut
from codectok.errors import AudioError, InputError
from codectok.keys import make_key
from codectok.shards import (
    MANIFEST_FILE,
    Sample,
    ShardEntry,
    ShardManifest,
    ShardWriter,
    index_path,
    write_index,
)

from .job import FinishedUnit, Job, UnitResult
from .rejects import Reject
from .sources import Source, Unit, check_unit_seconds

SAMPLE_RATES = range(8000, 192_001)


@dataclass(frozen=True)
class ShardOptions:
    """How segments are cut and written; `shard_seconds` is the estimated audio of one tar."""

    min_seconds: float = 2.0
    max_seconds: float = 10.0
    sample_rate: int = 24_000
    segmenter: Segmenter = "quiet"
    format: AudioFormat = "flac"
    shard_seconds: float = 3600.0

    def __post_init__(self) -> None:
        check_limits(self.min_seconds, self.max_seconds, self.segmenter)
        if self.sample_rate not in SAMPLE_RATES:
            raise InputError(
                f"A sample rate of {self.sample_rate} Hz is impossible; give one from {SAMPLE_RATES[0]} to"
                f" {SAMPLE_RATES[-1]} Hz."
            )
        check_unit_seconds(self.shard_seconds)


class ShardJob(Job):
    """Cuts every file of a unit into segments and writes them into one tar."""

    verb = "shard"
    row_name = "segments"

    def __init__(self, options: ShardOptions) -> None:
        self.settings = options

    def options(self) -> Mapping[str, object]:
        """All of `ShardOptions`."""
        return asdict(self.settings)

    def run(self, unit: Unit, folder: Path) -> UnitResult:
        """Write `shard-NNNNNN.tar` and its index."""
        path = folder / f"shard-{unit.number:06d}.tar"
        rejects: list[Reject] = []
        with ShardWriter(path, self.settings.format) as writer:
            for source in unit.sources:
                rejects += self._shard(source, writer)
        if not writer.index:
            path.unlink()
            return UnitResult(0, 0.0, tuple(rejects))
        index = index_path(folder, path.name)
        index.parent.mkdir(parents=True)
        write_index(index, writer.index)
        seconds = sum(sample.n_samples for sample in writer.index) / self.settings.sample_rate
        return UnitResult(len(writer.index), seconds, tuple(rejects))

    def finish(self, folder: Path, units: Sequence[FinishedUnit]) -> None:
        """Write `shards.json`."""
        entries = [
            ShardEntry(
                name=file.name,
                samples=finished.result.rows,
                seconds=finished.result.seconds,
                bytes=file.bytes,
                sha256=file.sha256,
            )
            for finished in units
            for file in finished.files
            if file.name.endswith(".tar")
        ]
        manifest = ShardManifest(sample_rate=self.settings.sample_rate, shards=tuple(entries))
        write_text(folder / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")

    def _shard(self, source: Source, writer: ShardWriter) -> list[Reject]:
        """Write the segments of `source`; what gives none comes back as rejects."""
        settings = self.settings
        try:
            samples = read_audio(source.location, settings.sample_rate)
        except AudioError as error:
            return [Reject.of(error, source.name, "decode")]
        rejects = []
        for start, end in cut(
            samples, settings.sample_rate, settings.min_seconds, settings.max_seconds, settings.segmenter
        ):
            seconds = (end - start) / settings.sample_rate
            if seconds < settings.min_seconds:
                message = f"{seconds:.2f} s are less than {settings.min_seconds:g} s."
                at = start / settings.sample_rate
                rejects.append(Reject(source.name, at, seconds, "segment", "too_short", message))
            else:
                self._write(source, samples[start:end], start, writer)
        return rejects

    def _write(self, source: Source, segment: np.ndarray, start: int, writer: ShardWriter) -> None:

        sample_rate = self.settings.sample_rate
        description = Sample(
            dataset=source.dataset,
            source=source.name,
            start=start / sample_rate,
            duration=len(segment) / sample_rate,
            sample_rate=sample_rate,
            n_samples=len(segment),
            loudness=integrated_loudness(segment, sample_rate),
        )
        writer.write(make_key(source.dataset, source.path, start), segment, description)
