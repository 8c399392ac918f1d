"""Running a job from the command line, with progress and a table at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from codectok.formatting import counted, format_duration, megabytes
from codectok.phases import PROCESS_STARTED, PhaseClock

from .console import ProgressReport, console, facts_table, progress, rows_table, say, warn
from .interruption import check_interruption
from .job_choices import JobChoices

if TYPE_CHECKING:
    from codectok.pipelines.engine.job import Job
    from codectok.pipelines.engine.options import RunOptions
    from codectok.pipelines.engine.output.records import UnitRecord
    from codectok.pipelines.engine.planning.plan import Plan
    from codectok.pipelines.engine.planning.preview import Preview
    from codectok.pipelines.engine.progress import Machine
    from codectok.pipelines.engine.run import JobReport

SHOWN_REJECTS = 5


def command_clock() -> PhaseClock:
    """Return a clock that began with the command, in the phase of imports."""
    return PhaseClock("imports", PROCESS_STARTED)


def gpu_model_elsewhere(choices: JobChoices, device: str) -> str | None:
    """Name of the GPUs of the cluster that a job would use from this machine, which has none; else None.

    With `device` "cuda", wait for a cluster that has no free GPU, or none yet.
    """
    import torch

    from codectok.pipelines.engine.executors.ray_cluster import gpu_model_of

    elsewhere = choices.engine == "ray" and device in ("auto", "cuda") and not torch.cuda.is_available()
    return gpu_model_of(choices.address, warn if device == "cuda" else None) if elsewhere else None


def run_and_report(
    job: Job,
    sources: Sequence[str],
    output: str,
    choices: JobChoices,
    gpus: int | None = None,
    facts: Mapping[str, object] | None = None,
    clock: PhaseClock | None = None,
) -> JobReport | None:
    """Run `job` over `sources` into `output`, and show its progress and results; None after a dry run.

    Args:
        job: job to run.
        sources: folders, patterns, files, manifests or URLs.
        output: folder or URL.
        choices: options of the command line.
        gpus: number of GPUs to use; None for all.
        facts: rows to add to the table of results.
        clock: clock of the command (`command_clock`); None for one that counts all so far as imports.
    """
    clock = clock or command_clock()
    from codectok.pipelines.engine.run import run_job

    options = choices.run_options(gpus)
    if choices.dry_run:
        _show_preview(job, sources, output, options, facts or {})
        return None
    display = _JobDisplay()
    try:
        with progress(None, job.verb) as display.report:
            result = run_job(job, sources, output, options, display, clock)
    except KeyboardInterrupt:
        if display.plan is not None:
            warn(
                f"{display.done} of {len(display.plan.units)} units of `{display.plan.header.verb}` in {output} are"
                " finished; run the same command again to resume."
            )
        raise
    if result.new_units == 0 and result.summary.complete:
        say(f"{output} is already finished; nothing to do.")
    if result.new_units:
        from codectok.sources.rejects import read_rejects
        from codectok.storage import open_storage

        for reject in read_rejects(open_storage(output), SHOWN_REJECTS):
            warn(f"Rejected: {reject.source}: {reject.message}")
    _show_summary(job, output, result, facts or {})
    return result


class _JobDisplay:
    """Shows the progress of a job: audio done, speed, time left."""

    def __init__(self) -> None:
        self.report: ProgressReport | None = None
        self.plan: Plan | None = None
        self.done = 0
        self._audio_seconds, self._rejects = 0.0, 0
        self._started = time.monotonic()
        self._busy: float | None = None

    def planned(self, plan: Plan, done: Sequence[UnitRecord], to_do: Sequence[int]) -> None:
        self.plan, self.done = plan, len(done)
        self._audio_seconds, self._rejects = 0.0, 0
        self._started = time.monotonic()
        if done and to_do:
            say(f"{len(done)} of {len(plan.units)} units are already finished; resuming.")
        assert self.report is not None, "a job runs within its progress"
        # Progress is measured in audio, estimated from file sizes, because units differ in size.
        self.report.set_total(float(plan.units.weights(to_do).sum()))

    def asked(self, machines: Sequence[Machine]) -> None:
        from .times import machine_rows

        rows_table("machines", ["machines", "CPUs", "GPUs", "programs"], machine_rows(machines))

    def started(self, workers: int, threads: int, gpus: int) -> None:
        cores = f" of {threads} threads" if threads > 1 else ""
        say(f"Running on {counted(workers, 'worker')}{cores}" + (f" and {counted(gpus, 'GPU')}." if gpus else "."))

    def finished(self, record: UnitRecord) -> None:
        self.done += 1
        total = record.total
        self._audio_seconds += total.input_seconds
        self._rejects += sum(total.rejects.values())
        assert self.report is not None, "a job runs within its progress"
        self.report.advance(self._note(), self._weight(record.unit))
        check_interruption()

    def busy(self, share: float) -> None:
        self._busy = share

    def note(self, message: str) -> None:
        warn(message)

    def _weight(self, unit: int) -> float:
        assert self.plan is not None, "units run after planning"
        return float(self.plan.units.weights([unit])[0])

    def _note(self) -> str:
        assert self.plan is not None, "units run after planning"
        elapsed = max(time.monotonic() - self._started, 1e-3)
        facts = [
            f"{self.done:,} of {len(self.plan.units):,} units",
            f"{format_duration(self._audio_seconds)} of audio",
            f"{self._audio_seconds / elapsed:,.0f}x real time",
        ]
        if self._busy is not None:
            facts.append(f"GPU {self._busy:.0%} busy")
        if self._rejects:
            facts.append(f"{self._rejects:,} rejected")
        return ", ".join(facts)


def _show_preview(
    job: Job, sources: Sequence[str], output: str, options: RunOptions, known: Mapping[str, object]
) -> None:
    from codectok.pipelines.engine.planning.preview import preview_job

    preview = preview_job(job, sources, output, options)
    facts = {
        "sources": f"{preview.sources:,}, such as {', '.join(preview.example)}",
        "ignored": f"{preview.ignored:,} other files",
        "units": f"{preview.units:,}, of which {preview.finished_units:,} are finished;"
        f" {preview.units_to_do:,} would run now",
        **_to_read(preview),
        "output": f"about {megabytes(round(preview.estimated_bytes))} in {output}",
        **known,
    }
    if preview.free_bytes is not None:
        facts["free space"] = megabytes(preview.free_bytes)
    console.print()
    facts_table(f"codectok {job.verb}: dry run", facts)


def _to_read(preview: Preview) -> dict[str, str]:
    if preview.estimated_bytes_to_read is not None:
        return {"to read": f"about {megabytes(round(preview.estimated_bytes_to_read))}"}
    return {"audio to read": f"about {format_duration(preview.estimated_seconds)}, by file sizes"}


def _show_summary(job: Job, output: str, result: JobReport, known: Mapping[str, object]) -> None:
    from codectok.pipelines.engine.output.report import (
        REPORT_FILE,
        describe_bugs,
        describe_labels,
        describe_layouts,
        describe_rejects,
        reject_rows,
        written_columns,
    )
    from codectok.sources.rejects import REJECTS_FOLDER
    from codectok.sources.unused import unused_rows
    from codectok.storage import open_storage

    from .times import time_facts

    summary = result.summary
    total = summary.total
    facts: dict[str, object] = {
        "output": output,
        **known,
        "units": f"{summary.units:,} of {summary.planned_units:,}" + ("" if summary.complete else " are finished"),
        job.row_name: f"{total.rows:,}",
        "audio": f"{format_duration(total.seconds)} of {format_duration(total.input_seconds)} read",
        "files": f"{summary.files:,} ({megabytes(summary.bytes)})",
        "rejected": describe_rejects(total) + (f" (see {output}/{REJECTS_FOLDER})" if total.rejects else ""),
        "ignored": f"{total.ignored:,} other files",
        **({"read as": describe_layouts(summary)} if summary.layouts else {}),
        **({"labels": describe_labels(total, job.row_name)} if "audio" in job.kinds else {}),
    }
    if total.codes:
        facts[job.code_name] = f"{total.codes:,}"
    if result.timing is not None:
        facts |= time_facts(result.timing)
    if summary.complete:
        facts["report"] = f"{output}/{REPORT_FILE}"
    console.print()
    facts_table(f"codectok {job.verb}", facts)
    if total.rejects:
        rows_table("rejected", ("reason", "times", "audio"), reject_rows(total))
    if total.unused:
        rows_table("not used", ("part", "name", "number", "example"), unused_rows(total.unused))
    if len(summary.datasets) > 1:
        written = written_columns(job, total)
        rows_table(
            "by dataset",
            ("dataset", "read", "kept", *written, "rejected"),
            [
                (
                    name,
                    format_duration(counts.input_seconds),
                    format_duration(counts.seconds),
                    *(f"{count_of(counts):,}" for count_of in written.values()),
                    describe_rejects(counts),
                )
                for name, counts in summary.datasets.items()
            ],
        )
    for sentence in (*job.reporter.advice(summary.datasets), describe_bugs(total, open_storage(output))):
        if sentence:
            warn(sentence)
