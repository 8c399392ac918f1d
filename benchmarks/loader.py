"""Compares the loader of training data with stock webdataset and a folder of files, and times its start.

Usage: python benchmarks/loader.py [--audio FOLDER] [--seconds 3600] [--rounds 5] [--save]

All three return batches of random crops of 3 s from the same FLAC samples of 2 to 10 s, decoded by the same function;
only the access to samples differs. codectok reads in an exact, resumable order and masks damaged samples; webdataset
shuffles shards and a buffer of 1,000 samples; the folder has one file for each sample, read in random order.

The second table times the first batch: of 2,000 shards, and when resuming at 90 % of an epoch of 10,000,000 samples.
All these shards are links to one tar and one index.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import common
import numpy as np
import soundfile
import torch
import webdataset
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from codectok.shards import (
    INDEX_FOLDER,
    MANIFEST_FILE,
    IndexedSample,
    Sample,
    ShardEntry,
    ShardManifest,
    ShardWriter,
    index_path,
    write_index,
)
from codectok.train import DataConfig, SegmentLoader, SegmentReader

SAMPLE_RATE, SEGMENT_SECONDS, BATCH = 24_000, 3.0, 16
SEGMENT = round(SEGMENT_SECONDS * SAMPLE_RATE)
SHARD_SAMPLES = 100
SHUFFLE_BUFFER = 1000
MANY_SHARDS, LONG_EPOCH = 2000, 10_000_000


def write_tar(path: Path, clips: list[np.ndarray], first: int) -> list[IndexedSample]:
    with ShardWriter(path) as writer:
        for number, clip in enumerate(clips, first):
            seconds = len(clip) / SAMPLE_RATE
            sample = Sample(
                dataset="clips",
                source=f"{number}.wav",
                start=0.0,
                duration=seconds,
                sample_rate=SAMPLE_RATE,
                n_samples=len(clip),
            )
            writer.write(f"clip-{number:08d}", clip, sample)
    return writer.index


def write_manifest(folder: Path, names: list[str], samples: int) -> None:
    entries = [ShardEntry(name=name, samples=samples, seconds=6.0 * samples, bytes=0, sha256=name) for name in names]
    manifest = ShardManifest(sample_rate=SAMPLE_RATE, shards=tuple(entries))
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json())


def write_corpus(folder: Path, clips: list[np.ndarray]) -> tuple[Path, Path]:
    """Write the clips as shards of equal numbers of samples, and as files."""
    shards, files = folder / "shards", folder / "files"
    (shards / INDEX_FOLDER).mkdir(parents=True)
    files.mkdir()
    names = []
    for first in range(0, len(clips), SHARD_SAMPLES):
        names.append(f"shard-{len(names):06d}.tar")
        index = write_tar(shards / names[-1], clips[first : first + SHARD_SAMPLES], first)
        write_index(index_path(shards, names[-1]), index)
    for number, clip in enumerate(clips):
        soundfile.write(files / f"clip-{number:08d}.flac", clip, SAMPLE_RATE, subtype="PCM_16")
    write_manifest(shards, names, SHARD_SAMPLES)
    return shards, files


def write_linked_shards(folder: Path, clips: list[np.ndarray], shards: int, samples: int) -> Path:
    """Write `shards` links to one shard; its index repeats the same few clips up to `samples` entries."""
    (folder / INDEX_FOLDER).mkdir(parents=True)
    names = [f"shard-{number:06d}.tar" for number in range(shards)]
    index = write_tar(folder / names[0], clips, 0)
    repeated = [index[number % len(index)] for number in range(samples)]
    write_index(index_path(folder, names[0]), repeated)
    for name in names[1:]:
        os.link(folder / names[0], folder / name)
        os.link(index_path(folder, names[0]), index_path(folder, name))
    write_manifest(folder, names, samples)
    return folder


def cut(audio: soundfile.SoundFile) -> np.ndarray:
    """Cut a random segment of 3 s, padded with zeros."""
    segment = np.zeros(SEGMENT, np.float32)
    audio.seek(int(np.random.default_rng().integers(max(0, audio.frames - SEGMENT) + 1)))
    samples = audio.read(SEGMENT, dtype="float32")
    segment[: len(samples)] = samples
    return segment


def from_bytes(data: bytes) -> np.ndarray:
    with soundfile.SoundFile(io.BytesIO(data)) as audio:
        return cut(audio)


class FileDataset(Dataset[np.ndarray]):
    """Reads each file of a folder as one sample."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> np.ndarray:
        return from_bytes(self.paths[number].read_bytes())


def consume(batches: Iterator[Tensor], count: int) -> None:
    for _ in range(count):
        assert next(batches).shape[1] == SEGMENT


def ours(shards: Path, count: int, workers: int) -> None:
    config = DataConfig(shards=(shards,), batch_size=BATCH, num_workers=workers)
    loader = SegmentLoader(SegmentReader(config, SAMPLE_RATE, SEGMENT, seed=0), config)
    consume((batch.filled() for batch in loader), count)


def stock_webdataset(shards: Path, count: int, workers: int) -> None:
    tars = [str(path) for path in sorted(shards.glob("*.tar"))]
    samples = webdataset.WebDataset(tars, shardshuffle=len(tars), empty_check=False).shuffle(SHUFFLE_BUFFER)
    batches = samples.map(lambda sample: (from_bytes(sample["flac"]),)).batched(BATCH, partial=False)
    loader = webdataset.WebLoader(batches, batch_size=None, num_workers=workers)
    consume((torch.as_tensor(waveforms) for (waveforms,) in loader), count)


def folder_of_files(files: Path, count: int, workers: int) -> None:
    consume(iter(DataLoader(FileDataset(files), BATCH, shuffle=True, num_workers=workers)), count)


def first_batch(shards: Path, position: int, workers: int) -> Callable[[], None]:
    def run() -> None:
        config = DataConfig(shards=(shards,), batch_size=BATCH, num_workers=workers)
        next(iter(SegmentLoader(SegmentReader(config, SAMPLE_RATE, SEGMENT, seed=0), config, position)))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the speed of loading training data.")
    parser.add_argument("--audio", type=Path, help="a folder of recordings; noise without it")
    parser.add_argument("--seconds", type=float, default=3600.0, help="audio to work on")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median is shown")
    parser.add_argument("--save", action="store_true", help="also write the output to benchmarks/results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = common.Report()
    report.console.print(common.machine(torch.device("cpu")))
    report.console.print(f"load average of the last minute at the start: {os.getloadavg()[0]:.1f}")
    clips = common.clips_of(common.audio_of(options.audio, options.seconds, SAMPLE_RATE), SAMPLE_RATE)
    clips = clips[: len(clips) // SHARD_SAMPLES * SHARD_SAMPLES]
    # Each worker of webdataset drops its last incomplete batch, so count a few batches less.
    count = len(clips) // BATCH - 4
    seconds = count * BATCH * SEGMENT_SECONDS
    with tempfile.TemporaryDirectory() as temporary:
        shards, files = write_corpus(Path(temporary), clips)
        for workers in (0, 2):
            runs: dict[str, Callable[[], object]] = {
                "webdataset": lambda workers=workers: stock_webdataset(shards, count, workers),
                "codectok": lambda workers=workers: ours(shards, count, workers),
                "folder of FLAC files": lambda workers=workers: folder_of_files(files, count, workers),
            }
            where = "one process" if workers == 0 else f"{workers} workers, 2 cores"
            title = f"{count} batches of {BATCH} x {SEGMENT_SECONDS:g} s, {where}, median of {options.rounds}"
            report.console.print(common.rates_table(title, runs, seconds, "webdataset", options.rounds))
        many = write_linked_shards(Path(temporary) / "many", clips[:SHARD_SAMPLES], MANY_SHARDS, SHARD_SAMPLES)
        per_shard = LONG_EPOCH // MANY_SHARDS
        long = write_linked_shards(Path(temporary) / "long", clips[:SHARD_SAMPLES], MANY_SHARDS, per_shard)
        starts = {
            f"first batch of {MANY_SHARDS:,} shards": (many, 0),
            f"resuming at 90 % of {LONG_EPOCH:,} samples": (long, round(0.9 * LONG_EPOCH)),
        }
        table = Table(title=f"Seconds until the first batch, median of {options.rounds}")
        for heading in ("what", "one process", "2 workers", "more memory"):
            table.add_column(heading, justify="left" if heading == "what" else "right")
        for what, (place, position) in starts.items():
            memory = common.peak_megabytes(first_batch(place, position, 0), torch.device("cpu"))
            times = common.interleaved(
                {str(workers): first_batch(place, position, workers) for workers in (0, 2)}, options.rounds
            )
            medians = [f"{statistics.median(times[str(workers)]):.2f}" for workers in (0, 2)]
            table.add_row(what, *medians, "" if memory is None else f"{memory:.0f} MB")
        report.console.print(table)
    if options.save:
        report.save("loader-cpu")


if __name__ == "__main__":
    main()
