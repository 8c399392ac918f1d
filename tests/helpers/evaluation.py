"""Quick evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from codectok.pipelines.engine.run import JobReport
from codectok.pipelines.evaluate.job import EvaluateJob
from codectok.pipelines.evaluate.options import EvaluateOptions, NamedCodec

from .jobs import run

# Options of the command line for an evaluation that takes no time.
QUICK = ("--metrics", "si_sdr", "--controls", "none", "--no-stability", "--engine", "local")


def quick_options(codec: Path, **options: Any) -> EvaluateOptions:
    """Options of an evaluation of one metric without controls."""
    quick: dict[str, Any] = {"metrics": ("si_sdr",), "controls": (), "stability": False, "device": "cpu"}
    return EvaluateOptions(NamedCodec.parse_all([str(codec)]), **(quick | options))


def evaluated(codec: Path, source: Path, out: Path, **options: Any) -> tuple[JobReport, list[dict[str, Any]]]:
    """Evaluate a codec by one metric without controls; returns the report and the rows."""
    report = run(EvaluateJob(quick_options(codec, **options)), source, out)
    rows: list[dict[str, Any]] = pq.read_table(out / "metrics.parquet").to_pylist()
    return report, rows
