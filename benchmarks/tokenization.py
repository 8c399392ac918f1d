"""Compares tokenizing a corpus end to end with loops written by hand, and finds the bottleneck.

Usage: python benchmarks/tokenization.py [--codec PRESET|DIR] [--device cuda] [--audio FOLDER] [--seconds 600] [--save]

All read the same clips of 2-10 s from tars or a folder of MP3 files. The base is the encoder alone, with samples in
memory and all threads. The job runs one worker with one thread per core and writes a complete table; the start of its
workers is measured separately, with a job of one clip. By hand: a loop with `encode` and `numpy.save`, and a DataLoader
with padded batches. The second table shows the cost of each step beside encoding.
"""

from __future__ import annotations

import io
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import common
import numpy as np
import ray
import soundfile
import torch
from padded import PADDED_BATCH, padded_baseline
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from codectok import Codec
from codectok.audio.files import read_audio, write_audio
from codectok.audio.resample import resample
from codectok.choices import EngineName
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.shard.job import ShardJob
from codectok.pipelines.shard.options import ShardOptions
from codectok.pipelines.tokenize.job import TokenizeJob
from codectok.pipelines.tokenize.options import TokenizeOptions

PARTS_PER_WORKER = 2
MP3_RATE = 48_000
START = "job of one clip"
BASE = "encoder alone"


class Files(Dataset[np.ndarray]):
    """Reads audio files as samples [n]."""

    def __init__(self, paths: list[Path], rate: int) -> None:
        self.paths, self.rate = paths, rate

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> np.ndarray:
        return read_audio(self.paths[number], self.rate)


def loop(codec: Codec, paths: list[Path], to: Path) -> None:
    """Encode one file after the other."""
    for path in paths:
        np.save(to / f"{path.stem}.npy", codec.encode(read_audio(path, codec.sample_rate), codec.sample_rate).numpy())


def padded(codec: Codec, paths: list[Path], to: Path) -> None:
    """Encode batches padded to their longest clip."""
    loader = DataLoader(Files(paths, codec.sample_rate), PADDED_BATCH, collate_fn=list)
    for number, batch in enumerate(loader):
        np.savez(to / f"{number}.npz", *padded_baseline(codec, batch))


class Job:
    """Runs `codectok tokenize` with a codec, into a new folder at each call."""

    def __init__(self, codec: Codec, scratch: Path, part_seconds: float) -> None:
        codec.save_pretrained(scratch / "codec")
        self._options = TokenizeOptions(str(scratch / "codec"), device=codec.device.type, part_seconds=part_seconds)

    def run(self, source: Path, engine: EngineName = "ray") -> None:
        """Tokenize `source` completely."""
        with tempfile.TemporaryDirectory() as folder:
            run_job(TokenizeJob(self._options), [str(source)], Path(folder) / "out", RunOptions(engine))


def make_sources(scratch: Path, audio: np.ndarray, rate: int) -> dict[str, Path]:
    """Write the clips of `audio` into tars, and as MP3 files."""
    files = scratch / "flac"
    for number, clip in enumerate(common.clips_of(audio, rate)):
        write_audio(files / f"{number:05d}.flac", [clip], rate)
        mp3 = scratch / "mp3" / f"{number:05d}.mp3"
        mp3.parent.mkdir(exist_ok=True)
        soundfile.write(mp3, resample(clip, rate, MP3_RATE), MP3_RATE)
    run_job(ShardJob(ShardOptions(shard_seconds=300.0)), [str(files)], scratch / "tars", RunOptions("local"))
    return {"tars": scratch / "tars", "a folder of MP3": scratch / "mp3"}


def decode_all(paths: list[Path], rate: int) -> None:
    """Decode and resample all files on one core."""
    for path in paths:
        read_audio(path, rate)


def ways_table(
    name: str, codec: Codec, job: Job, source: Path, scratch: Path, audio: np.ndarray, rounds: int
) -> tuple[Table, float]:
    """Return the table of rates for a source, and the seconds of the encoder alone."""
    clips = common.clips_of(audio, codec.sample_rate)
    paths = sorted((scratch / "mp3" if "MP3" in name else scratch / "flac").iterdir())
    (one := scratch / "one").mkdir(exist_ok=True)
    soundfile.write(one / "clip.flac", clips[0], codec.sample_rate)
    (results := scratch / "results").mkdir(exist_ok=True)
    runs: dict[str, Callable[[], object]] = {
        BASE: lambda: codec.encode_batch(clips, codec.sample_rate),
        "job": lambda: job.run(source),
        START: lambda: job.run(one),
        "loop, encode and numpy.save": lambda: loop(codec, paths, results),
        "DataLoader, padded batches": lambda: padded(codec, paths, results),
    }
    times = common.interleaved(runs, rounds)
    seconds = sum(map(len, clips)) / codec.sample_rate
    beyond = [whole - start for whole, start in zip(times["job"], times[START], strict=True)]
    times["job, beyond its start"] = beyond
    table = Table(title=f"{seconds:,.0f} s in {len(clips)} clips from {name}, median of {rounds}")
    for heading in ("way", "seconds", "audio s/s", f"x {BASE}"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for way in (BASE, "job", "job, beyond its start", *list(runs)[2:]):
        taken = statistics.median(times[way])
        rate = "-" if way == START else f"{seconds / taken:,.1f}"
        share = "-" if way == START else f"{1 / common.ratio(times, way, BASE):.2f}"
        table.add_row(way, f"{taken:,.1f}", rate, share)
    return table, statistics.median(times[BASE])


def limits_table(codec: Codec, scratch: Path, audio: np.ndarray, encoding: float, rounds: int) -> Table:
    """Return the table of the work around the encoder, and the cores it needs to keep up."""
    rate = codec.sample_rate
    seconds = len(audio) / rate
    flac, mp3 = (sorted((scratch / kind).iterdir()) for kind in ("flac", "mp3"))
    packs = np.random.default_rng(0).normal(size=len(audio)).astype(np.float32)
    runs: dict[str, Callable[[], object]] = {
        "decode FLAC, 1 core": lambda: decode_all(flac, rate),
        "decode MP3, 1 core": lambda: decode_all(mp3, rate),
        "hand over through Ray's store": lambda: ray.get(ray.put(packs)),
        "write codes": lambda: np.savez_compressed(io.BytesIO(), np.arange(round(seconds * codec.frame_rate)) % 997),
    }
    times = common.interleaved(runs, rounds)
    table = Table(title=f"Seconds for an hour of audio; the encoder on {codec.device_class} is the limit where largest")
    for heading in ("work", "s an hour", "cores that keep up with the encoder"):
        table.add_column(heading, justify="left" if heading == "work" else "right")
    table.add_row("encode", f"{encoding * 3600 / seconds:,.1f}", "")
    for way in runs:
        taken = statistics.median(times[way])
        table.add_row(way, f"{taken * 3600 / seconds:,.2f}", f"{taken / encoding:.2f}")
    return table


def main() -> None:
    """Print one table for each kind of source, and one of limits."""
    made = common.parser("Measure tokenizing a corpus end to end.")
    made.set_defaults(seconds=600.0, rounds=3)
    options = made.parse_args()
    codec = common.load(options.codec, options.device)
    report = common.Report()
    report.console.print(f"{codec.config.name}, {codec.header.origin}\n{common.machine(codec.device)}")
    report.console.print(f"audio: {'recordings' if options.audio else 'noise'}")
    audio = common.audio_of(options.audio, options.seconds, codec.sample_rate)
    workers = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        sources = make_sources(scratch, audio, codec.sample_rate)
        job = Job(codec, scratch, options.seconds / (PARTS_PER_WORKER * workers))
        ray.init(include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        try:
            for name, source in sources.items():
                table, encoding = ways_table(name, codec, job, source, scratch, audio, options.rounds)
                report.console.print(table)
            report.console.print(limits_table(codec, scratch, audio, encoding, options.rounds))
        finally:
            ray.shutdown()
    if options.save:
        report.save(f"tokenization-{codec.config.name}-{codec.device.type}")


if __name__ == "__main__":
    main()
