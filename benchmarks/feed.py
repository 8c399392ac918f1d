"""Measures how much audio a worker hands to an encoder that answers at once, and so how many cores a GPU needs.

Usage: python benchmarks/feed.py [--codec PRESET] [--audio FOLDER] [--seconds 3600] [--save]

Runs `codectok tokenize` itself over FLAC tars: reading, decoding, checks, packing, writing and syncing of the table.
Only the codes are not computed: every batch is answered with zeros. The first way has the encoder in the process of the
worker, the second in another process of Ray, as on a GPU. Rates are of the time in which the worker had units;
the first way is also shown by the processor time of its whole process, which other programs do not change.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
import ray
import torch
from rich.table import Table
from torch import Tensor

from codectok import Codec
from codectok.audio.files import write_audio
from codectok.choices import EngineName
from codectok.phases import ENCODING, OTHER, READING, WRITING
from codectok.pipelines.engine.job import RunUnit, Server, WorkerContext
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.engine.timing import RunTiming
from codectok.pipelines.shard.job import ShardJob
from codectok.pipelines.shard.options import ShardOptions
from codectok.pipelines.tokenize.job import TokenizeJob
from codectok.pipelines.tokenize.options import TokenizeOptions

GPU = "a GPU that answers at once"
WORK = (READING, ENCODING, WRITING, OTHER)
WAYS: Mapping[str, EngineName] = {"encoder in the worker": "local", "encoder behind Ray": "ray"}


class Zeros:
    """Answers every pack with zeros at once."""

    batches_ahead = 1

    def __init__(self, n_codebooks: int) -> None:
        self._n_codebooks = n_codebooks

    def start(self, *arrays: np.ndarray) -> Callable[[], Tensor]:
        """Return the codes of a pack, given its samples and the gaps of each level."""
        return lambda: torch.zeros(len(arrays[-1]), self._n_codebooks, dtype=torch.int64)


class ZeroServer(Server):
    """Answers in a process of Ray."""

    gpus = 0.0

    def __init__(self, n_codebooks: int) -> None:
        self._zeros = Zeros(n_codebooks)

    def start(self) -> Callable[..., np.ndarray]:
        """Return a function that answers packs as the server of a codec does."""
        return lambda *arrays: self._zeros.start(*arrays)().to(torch.int32).numpy()

    def probe(self, unit: Unit) -> None:
        """Nothing can crash."""


class FeedJob(TokenizeJob):
    """Tokenizes as for a GPU, with zeros for codes."""

    def __init__(self, options: TokenizeOptions) -> None:
        super().__init__(options, GPU)

    @property
    def server(self) -> Server:
        """The server of zeros."""
        return ZeroServer(self.description.n_codebooks)

    def start(self, context: WorkerContext) -> RunUnit:
        """Answer in this process if there is no server."""
        if context.server is not None:
            return super().start(context)
        encoder = self._batching.clip_encoder(Zeros(self.description.n_codebooks))
        return lambda unit, output: self._write_part(encoder, unit, output)


def make_tars(scratch: Path, audio: np.ndarray, rate: int) -> tuple[Path, int, float]:
    """Write clips of 2-10 s into tars of FLAC; returns their folder, and the number and seconds of clips."""
    clips = common.clips_of(audio, rate)
    for number, clip in enumerate(clips):
        write_audio(scratch / "flac" / f"{number:05d}.flac", [clip], rate)
    options = ShardOptions(shard_seconds=600.0)
    report = run_job(ShardJob(options), [str(scratch / "flac")], scratch / "tars", RunOptions("local"))
    return scratch / "tars", report.summary.total.rows, report.summary.total.seconds


@dataclass(frozen=True)
class Run:
    """Times of a run, and the processor time of this process in it."""

    timing: RunTiming
    processor: float


def feed(job: FeedJob, tars: Path, engine: EngineName) -> Run:
    """Run the job with one worker."""
    with tempfile.TemporaryDirectory() as folder:
        before = time.process_time()
        timing = run_job(job, [str(tars)], Path(folder) / "out", RunOptions(engine, workers=1)).timing
        processor = time.process_time() - before
    assert timing is not None, "units were made"
    return Run(timing, processor)


def working_seconds(timing: RunTiming) -> float:
    """Return the seconds in which the worker had units."""
    return sum(timing.worker_phases.get(phase, 0.0) for phase in WORK)


def feed_table(job: FeedJob, tars: Path, title: str, rounds: int) -> tuple[Table, float]:
    """Return the table of both ways, and the rate of the first one by processor time."""
    found: dict[str, list[Run]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):  # the first one warms up
        for way, engine in WAYS.items():
            run = feed(job, tars, engine)
            if number:
                found[way].append(run)
    table = Table(title=title)
    for heading in ("way", "x real time", "by processor time", *WORK):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    by_processor = 0.0
    for way, runs in found.items():
        timings = [run.timing for run in runs]
        rate = statistics.median(timing.audio / working_seconds(timing) for timing in timings)
        processor = statistics.median(run.timing.audio / run.processor for run in runs)
        local = WAYS[way] == "local"
        by_processor = processor if local else by_processor
        shares = [
            statistics.median(timing.worker_phases.get(phase, 0.0) / working_seconds(timing) for timing in timings)
            for phase in WORK
        ]
        shown = f"{processor:,.0f}" if local else "-"
        table.add_row(way, f"{rate:,.0f}", shown, *(f"{share:.0%}" for share in shares))
    return table, by_processor


def cores_table(rate: float) -> Table:
    """Return the number of cores that keep up with encoders of several speeds, at a `rate` for each core."""
    table = Table(title="Workers' cores for each GPU, for an encoder of this speed")
    for heading in ("encoder, x real time", "cores"):
        table.add_column(heading, justify="right")
    for speed in (2_000, 6_000, 10_000, 15_000):
        table.add_row(f"{speed:,}", f"{speed / rate:.1f}")
    return table


def main() -> None:
    """Print the table of rates, and the cores that a GPU needs."""
    made = common.parser("Measure how much audio a worker hands to an encoder that answers at once.")
    made.set_defaults(codec="nano", seconds=3600.0, rounds=3, device="cpu")
    options = made.parse_args()
    torch.set_num_threads(1)
    codec: Codec = common.load(options.codec, "cpu")
    report = common.Report()
    report.console.print(f"packs of {codec.config.name}\n{common.machine(codec.device)}")
    report.console.print(f"audio: {'recordings' if options.audio else 'noise'}")
    audio = common.audio_of(options.audio, options.seconds, codec.sample_rate)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        codec.save_pretrained(scratch / "codec")
        tars, clips, seconds = make_tars(scratch, audio, codec.sample_rate)
        job = FeedJob(TokenizeOptions(str(scratch / "codec"), device="cuda", part_seconds=options.seconds / 4))
        title = f"{seconds:,.0f} s in {clips:,} clips of 2-10 s from FLAC tars, one worker, median of {options.rounds}"
        ray.init(include_dashboard=False, logging_level="ERROR", log_to_driver=False, num_cpus=2)
        try:
            table, rate = feed_table(job, tars, title, options.rounds)
        finally:
            ray.shutdown()
        report.console.print(table)
        report.console.print(cores_table(rate))
    if options.save:
        report.save("feed-cpu")


if __name__ == "__main__":
    main()
