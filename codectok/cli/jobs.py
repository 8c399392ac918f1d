"""Running a job from the command line: progress while it runs, one table at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .console import console, facts_table, format_duration, megabytes, progress, say, warn
from .options import Engine

if TYPE_CHECKING:
    from codectok.pipelines.job import FinishedUnit, Job
    from codectok.pipelines.rejects import Reject
    from codectok.pipelines.sources import Listing, Unit

SHOWN_REJECTS = 10


def run_and_report(
    job: Job,
    listing: Listing,
    units: Sequence[Unit],
    output: Path,
    engine: Engine,
    workers: int | None,
    address: str | None,
    gpus_per_worker: float = 0.0,
) -> None:
    """Run `job` over `units` into `output` and show what came of it."""
    from codectok.pipelines.engine import EngineOptions, describe_rejects, run_job
    from codectok.pipelines.output import REJECTS_FOLDER

    options = EngineOptions(engine.value, workers, address, gpus_per_worker)
    done_seconds = 0.0
    examples: list[Reject] = []
    with progress(len(units), f"{job.verb}: units") as report:

        def on_unit(finished: FinishedUnit) -> None:
            nonlocal done_seconds
            done_seconds += finished.result.seconds
            unusable = [reject for reject in finished.result.rejects if reject.reason != "too_short"]
            examples.extend(unusable[: SHOWN_REJECTS - len(examples)])
            report.advance(f"({format_duration(done_seconds)} of audio)")

        try:
            result = run_job(job, listing, units, output, options, on_unit)
        except KeyboardInterrupt:
            if output.exists():
                warn(f"{output} holds a part of the output; delete it before you start again.")
            raise
    summary = result.summary
    for reject in examples:
        warn(f"Skipped: {reject.message}")
    if result.already_finished:
        say(f"{output} is already finished by the same command; nothing to do.")
    facts = {
        "output": output,
        job.row_name: f"{summary.rows:,}",
        "audio": format_duration(summary.seconds),
        "files": f"{summary.files:,} ({megabytes(summary.bytes)})",
        "rejected": describe_rejects(summary) + (f" (see {output / REJECTS_FOLDER})" if summary.rejects else ""),
        "ignored": f"{summary.ignored:,} other files",
    }
    if summary.codes:
        facts["codes"] = f"{summary.codes:,}"
    console.print()
    facts_table(f"codectok {job.verb}", facts)
