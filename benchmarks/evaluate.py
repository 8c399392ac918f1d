"""Measures how long evaluation takes: processor time of each metric, and how `evaluate` scales with workers.

Usage: python benchmarks/evaluate.py [--codec PRESET] [--audio FOLDER] [--seconds 90] [--metrics NAMES] [--save]

The first table holds processor times of a clip and one reconstruction, with values of the original computed once,
as `evaluate` does. The second runs `codectok evaluate` on Ray, with all installed metrics and controls, with one
worker and with more: clips a second while units run, loading of models included, and the speed as a share of a perfect
division. Beside it stand as many processes that know nothing of each other, each with a share of the clips: they show
how much faster this machine gets with several cores at work.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import common
import numpy as np
import ray
import torch
from rich.table import Table

from codectok import Codec
from codectok.audio.files import write_audio
from codectok.evaluation.metrics.base import Pair, Signal
from codectok.evaluation.metrics.registry import measure_pair, metric_name, metrics
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.engine.timing import UNITS
from codectok.pipelines.evaluate.job import EvaluateJob
from codectok.pipelines.evaluate.options import EvaluateOptions, NamedCodec

TEXT = "the quick brown fox jumps over the lazy dog"
# A unit is a clip, so that the last one of a worker does not decide.
UNIT_SECONDS = 1.0


def metrics_table(clips: list[np.ndarray], rate: int, names: tuple[str, ...] | None) -> Table:
    """Time each metric on clips with some noise."""
    seconds = sum(len(clip) for clip in clips) / rate
    table = Table(title=f"{len(clips)} clips of {seconds / len(clips):.1f} s on average, one core")
    for heading in ("metric", "ms a clip", "x real time"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    total = 0.0
    for metric in metrics(names=names):
        times = []
        for number, clip in enumerate([clips[0], *clips]):  # the first one loads models
            noise = np.random.default_rng(number).normal(0, 0.01, len(clip)).astype(np.float32)
            pair = Pair(Signal(clip, rate), Signal(clip + noise, rate), TEXT, "en")
            before = time.process_time()
            measure_pair([metric], pair)
            times.append(time.process_time() - before)
        spent = sum(times[1:])
        total += spent
        table.add_row(metric_name(metric), f"{1000 * spent / len(clips):,.1f}", f"{seconds / max(spent, 1e-9):,.1f}")
    table.add_row("all", f"{1000 * total / len(clips):,.1f}", f"{seconds / total:,.1f}")
    return table


def clips_a_second(options: EvaluateOptions, audio: Path, run_options: RunOptions) -> float:
    """Evaluate a folder, and return clips a second while units run."""
    with tempfile.TemporaryDirectory() as folder:
        report = run_job(EvaluateJob(options), [str(audio)], Path(folder) / "out", run_options)
    assert report.timing is not None, "units were made"
    return report.summary.total.rows / report.timing.command[UNITS]


def clips_a_second_apart(options: EvaluateOptions, folders: list[Path]) -> float:
    """Evaluate folders at the same time, each in a process of its own without Ray; the sum of their speeds."""
    torch_threads = partial(torch.set_num_threads, 1)
    with ProcessPoolExecutor(len(folders), get_context("spawn"), initializer=torch_threads) as pool:
        calls = [pool.submit(clips_a_second, options, folder, RunOptions("local")) for folder in folders]
        return sum(call.result() for call in calls)


def scaling_table(options: EvaluateOptions, audio: Path, shares: list[Path], rounds: int) -> Table:
    """Run the job with one worker and with one for each of `shares`; shares of speed are of one worker's."""
    workers = len(shares)
    ways: dict[tuple[str, int], Callable[[], float]] = {
        ("Ray", 1): lambda: clips_a_second(options, audio, RunOptions("ray", workers=1)),
        ("Ray", workers): lambda: clips_a_second(options, audio, RunOptions("ray", workers=workers)),
        ("processes apart", 1): lambda: clips_a_second_apart(options, shares[:1]),
        ("processes apart", workers): lambda: clips_a_second_apart(options, shares),
    }
    rates = {way: statistics.median(run() for _ in range(rounds)) for way, run in ways.items()}
    job, n_clips = EvaluateJob(options), len(list(audio.iterdir()))
    systems = len(job.codecs) + len(job.controls)
    table = Table(title=f"`codectok evaluate`: {n_clips} clips, {systems} codecs and controls, median of {rounds}")
    for heading in ("engine", "workers", "clips a second", "rows a second of a worker", "share of a perfect division"):
        table.add_column(heading, justify="left" if heading == "engine" else "right")
    for (engine, count), rate in rates.items():
        share = rate / (count * rates[engine, 1])
        table.add_row(engine, str(count), f"{rate:.3f}", f"{rate * systems / count:.2f}", f"{share:.0%}")
    return table


def main() -> None:
    """Print both tables."""
    made = common.parser("Measure how long evaluation takes.")
    made.add_argument("--metrics", help="names of metrics, separated by commas; all that are installed without it")
    made.add_argument("--workers", type=int, default=2, help="number of workers to compare with one")
    made.set_defaults(codec="nano", seconds=90.0, rounds=1, device="cpu")
    options = made.parse_args()
    names = tuple(options.metrics.split(",")) if options.metrics else None
    torch.set_num_threads(1)
    codec: Codec = common.load(options.codec, "cpu")
    report = common.Report()
    report.console.print(f"{codec.config.name}\n{common.machine(codec.device)}")
    report.console.print(f"audio: {'recordings' if options.audio else 'noise'}")
    clips = common.clips_of(common.audio_of(options.audio, options.seconds, codec.sample_rate), codec.sample_rate)
    report.console.print(metrics_table(clips[:8], codec.sample_rate, names))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        codec.save_pretrained(scratch / "codec")
        shares = [scratch / f"share-{number}" for number in range(options.workers)]
        for number, clip in enumerate(clips):
            for folder in (scratch / "clips", shares[number % len(shares)]):
                write_audio(folder / f"{number:05d}.flac", [clip], codec.sample_rate)
        evaluated = EvaluateOptions(
            NamedCodec.parse_all([str(scratch / "codec")]), device="cpu", unit_seconds=UNIT_SECONDS, metrics=names
        )
        ray.init(include_dashboard=False, logging_level="ERROR", log_to_driver=False, num_cpus=options.workers)
        try:
            report.console.print(scaling_table(evaluated, scratch / "clips", shares, options.rounds))
        finally:
            ray.shutdown()
    if options.save:
        report.save("evaluate-cpu")


if __name__ == "__main__":
    main()
