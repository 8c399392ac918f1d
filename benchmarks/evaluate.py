"""Measures how long evaluation takes: processor time of each metric, and how `evaluate` scales with workers.

Usage: python benchmarks/evaluate.py [--codec PRESET] [--audio FOLDER] [--seconds 90] [--metrics NAMES] [--save]

The first table holds processor times of a clip and one reconstruction, with values of the original computed once,
as `evaluate` does. The second runs `codectok evaluate` on Ray, with all installed metrics and controls, with one
worker and with more: clips a second while units run, loading of models included, and the speed as a share of a perfect
division.
"""

from __future__ import annotations

import statistics
import tempfile
import time
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


def scaling_table(options: EvaluateOptions, audio: Path, workers: int, rounds: int) -> Table:
    """Run the job with one worker and with more; the share is of the speed of one worker, for each."""
    rates: dict[int, list[float]] = {1: [], workers: []}
    systems = clips = 0
    for _ in range(rounds):
        for count, found in rates.items():
            with tempfile.TemporaryDirectory() as folder:
                job = EvaluateJob(options)
                report = run_job(job, [str(audio)], Path(folder) / "out", RunOptions("ray", workers=count))
            assert report.timing is not None, "units were made"
            systems, clips = len(job.codecs) + len(job.controls), report.summary.total.rows
            found.append(clips / report.timing.command[UNITS])
    table = Table(title=f"`codectok evaluate`: {clips} clips, {systems} codecs and controls, median of {rounds}")
    for heading in ("workers", "clips a second", "rows a second of a worker", "share of a perfect division"):
        table.add_column(heading, justify="right")
    one = statistics.median(rates[1])
    for count, found in rates.items():
        rate = statistics.median(found)
        table.add_row(str(count), f"{rate:.3f}", f"{rate * systems / count:.2f}", f"{rate / (count * one):.0%}")
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
        for number, clip in enumerate(clips):
            write_audio(scratch / "clips" / f"{number:05d}.flac", [clip], codec.sample_rate)
        evaluated = EvaluateOptions(
            NamedCodec.parse_all([str(scratch / "codec")]), device="cpu", unit_seconds=UNIT_SECONDS, metrics=names
        )
        ray.init(include_dashboard=False, logging_level="ERROR", log_to_driver=False, num_cpus=options.workers)
        try:
            report.console.print(scaling_table(evaluated, scratch / "clips", options.workers, options.rounds))
        finally:
            ray.shutdown()
    if options.save:
        report.save("evaluate-cpu")


if __name__ == "__main__":
    main()
