"""Compares the speed of sharding with a minimal loop, lhotse's Shar writer, and one ffmpeg per file.

Usage: python benchmarks/shard.py [--audio FOLDER] [--seconds 1200] [--rounds 5] [--save]

All convert the same Ogg Vorbis files of 44.1 kHz to FLAC segments of 24 kHz on one core. The minimal loop ("floor")
decodes, resamples and encodes, and writes nothing; codectok also cuts at quiet points, measures, and writes keys, JSON,
index, hashes and records. The second table compares two workers with two independent loops. lhotse and ffmpeg are
measured if they are installed (`pip install lhotse`).
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import multiprocessing
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import common
import numpy as np
import soundfile
import soxr
import torch

from codectok.choices import EngineName
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.shard.job import ShardJob
from codectok.pipelines.shard.options import ShardOptions

SOURCE_RATE, TARGET_RATE = 44_100, 24_000
FILE_SECONDS, SEGMENT_SECONDS = 120, 6
SHARD_SECONDS = 300.0
WORKER_COPIES = 5


def write_corpus(folder: Path, audio: np.ndarray) -> None:
    """Cut `audio` [n] into Ogg Vorbis files."""
    for number, start in enumerate(range(0, len(audio), FILE_SECONDS * SOURCE_RATE)):
        part = audio[start : start + FILE_SECONDS * SOURCE_RATE]
        with soundfile.SoundFile(folder / f"{number:04d}.ogg", "w", SOURCE_RATE, 1, format="OGG") as file:
            for block in np.array_split(part, max(1, len(part) // SOURCE_RATE)):
                file.write(block)


def floor(paths: list[Path]) -> None:
    """Decode, resample and encode without writing."""
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32")
        resampled = soxr.resample(samples, rate, TARGET_RATE, quality="HQ")
        for start in range(0, len(resampled), SEGMENT_SECONDS * TARGET_RATE):
            buffer = io.BytesIO()
            segment = resampled[start : start + SEGMENT_SECONDS * TARGET_RATE]
            soundfile.write(buffer, segment, TARGET_RATE, format="FLAC", subtype="PCM_16")


def two_floors(paths: list[Path]) -> None:
    """Run `floor` in two processes, each with half of the files."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(floor, [paths[0::2], paths[1::2]], chunksize=1)


def ours(folder: Path, engine: EngineName, workers: int = 1) -> None:
    """Run the shard job."""
    with tempfile.TemporaryDirectory() as output:
        job = ShardJob(ShardOptions(shard_seconds=SHARD_SECONDS))
        run_job(job, [str(folder)], Path(output) / "out", RunOptions(engine=engine, workers=workers))


def shar(paths: list[Path]) -> None:
    """Write tars of equally long segments with lhotse."""
    from lhotse import CutSet, Recording

    recordings = [Recording.from_file(path) for path in paths]
    cuts = CutSet.from_cuts(recording.to_cut() for recording in recordings)
    segments = cuts.cut_into_windows(SEGMENT_SECONDS).resample(TARGET_RATE)
    with tempfile.TemporaryDirectory() as output:
        segments.to_shar(output, fields={"recording": "flac"}, shard_size=50)


def ffmpeg_a_file(paths: list[Path]) -> None:
    """Run one ffmpeg process per file."""
    with tempfile.TemporaryDirectory() as output:
        for path in paths:
            split = ["-f", "segment", "-segment_time", str(SEGMENT_SECONDS), f"{output}/{path.stem}-%04d.flac"]
            command = [
                "ffmpeg",
                "-v",
                "error",
                "-threads",
                "1",
                "-i",
                path,
                "-ar",
                str(TARGET_RATE),
                "-ac",
                "1",
                *split,
            ]
            subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of sharding.")
    parser.add_argument("--audio", type=Path, help="a folder of recordings; noise without it")
    parser.add_argument("--seconds", type=float, default=1200.0, help="audio to work on")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median is shown")
    parser.add_argument("--save", action="store_true", help="also write the output to benchmarks/results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    import ray

    report = common.Report()
    report.console.print(common.machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder), common.audio_of(options.audio, options.seconds, SOURCE_RATE))
        paths = sorted(Path(folder).iterdir())
        single = Path(folder)
        runs: dict[str, Callable[[], None]] = {
            "floor: decode, resample, encode": lambda: floor(paths),
            "codectok shard": lambda: ours(single, "local"),
        }
        if importlib.util.find_spec("lhotse"):
            runs["lhotse Shar"] = lambda: shar(paths)
        if shutil.which("ffmpeg"):
            runs["an ffmpeg for each file"] = lambda: ffmpeg_a_file(paths)
        title = f"{options.seconds:,.0f} s of Ogg Vorbis, one core, median of {options.rounds}"
        report.console.print(
            common.rates_table(title, runs, options.seconds, "floor: decode, resample, encode", options.rounds)
        )
        # Use more files, so that the seconds to start actors matter little, as in a real job.
        more = Path(folder) / "more"
        more.mkdir()
        for copy in range(WORKER_COPIES):
            for path in paths:
                (more / f"{copy}-{path.name}").hardlink_to(path)
        many = sorted(more.iterdir())
        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        try:
            runs = {
                "one floor": lambda: floor(many),
                "two floors": lambda: two_floors(many),
                "1 worker": lambda: ours(more, "ray", 1),
                "2 workers": lambda: ours(more, "ray", 2),
            }
            seconds = options.seconds * WORKER_COPIES
            table = common.rates_table(
                f"Workers, {seconds:,.0f} s of audio", runs, seconds, "one floor", options.rounds
            )
            report.console.print(table)
        finally:
            ray.shutdown()
    if options.save:
        report.save("shard-cpu")


if __name__ == "__main__":
    main()
