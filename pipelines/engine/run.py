"""Runs a job: plan, lock, units, commits, what is left over for another time."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from codectok.errors import CodectokError, InputError
from codectok.pipelines.engine.executors.local import Outcome, run_locally
from codectok.pipelines.engine.executors.ray_actors import ClusterOptions, run_on_ray
from codectok.sources.arguments import parse_arguments
from codectok.sources.listing import JOB_FOLDER
from codectok.sources.rejects import REJECTS_FOLDER
from codectok.storage import Storage, open_storage

from .faults import FailedUnit
from .job import Job, Tally, UnitRecord
from .lock import Lock, Part, entry, lock_job
from .output import (
    TEMPORARY,
    JobSummary,
    OutputFolder,
    check_free,
    clear_temporaries,
    finished_units,
    is_marked_finished,
    write_summary,
)
from .plan import PLAN_FILE, Plan, copy_plan, load_plan
from .planning import add_sources, header_of, refuse_other_job
from .progress import Listener, Silent
from .report import REPORT_FILE, write_report

EngineName = Literal["ray", "local"]
# From so many inputs on, a share of broken ones says something.
INPUTS_BEFORE_JUDGEMENT = 1000
FIRST_PASS = f"{JOB_FOLDER}/first-pass"


@dataclass(frozen=True)
class RunOptions:
    """How and where units run, and which: never what they write.

    Attributes:
        engine: "ray" (actors) or "local" (this process, one after the other).
        workers: Ray actors; all cores of the cluster by default.
        address: of a Ray cluster to join; without one, `RAY_ADDRESS` or a Ray of this machine's own.
        gpus: that serve the workers of a job that uses some; all of the cluster by default.
        part: the share of the units to run; others run the other shares.
        limit: units to run at most.
        extend: list the sources again and add what is new.
        max_rejects: share of the inputs that may be broken.
        deadline_seconds: after which a worker counts as hanging and its unit is tried on another (Ray only).
        check_space: refuse to start where the output would not fit, by estimate.
    """

    engine: EngineName = "ray"
    workers: int | None = None
    address: str | None = None
    gpus: int | None = None
    part: Part | None = None
    limit: int | None = None
    extend: bool = False
    max_rejects: float = 0.1
    deadline_seconds: float = 6 * 3600.0
    check_space: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.max_rejects <= 1:
            raise InputError(f"The share of rejects is a number from 0 to 1, not {self.max_rejects:g}.")
        if self.extend and self.part is not None:
            raise InputError("Extend a job with one command for the whole of it, then run its parts.")


@dataclass(frozen=True)
class JobReport:
    """How a run ended.

    Attributes:
        summary: of all that is complete, earlier runs included.
        new_units: made by this run.
        failed: units that could not be made.
    """

    summary: JobSummary
    new_units: int
    failed: tuple[FailedUnit, ...] = ()


def run_job(
    job: Job,
    sources: Sequence[str],
    output: str | Path,
    options: RunOptions | None = None,
    listener: Listener | None = None,
) -> JobReport:
    """Run `job` over `sources` into the folder `output`; run it again to go on where it was stopped.

    Args:
        job: what to do.
        sources: folders, patterns, files, manifests, or URLs of them; `NAME=SOURCE` names a dataset.
        output: folder or URL, new or of the same job.
        options: how and where to run.
        listener: hears of plan and progress.

    Raises:
        InputError: sources that do not exist, an output that is taken or of another job, or too little space.
        CodectokError: units failed, too many inputs are broken, or not one could be used.
    """
    options, listener = options or RunOptions(), listener or Silent()
    storage = open_storage(output)
    check_free(storage)
    with ExitStack() as stack:
        with entry(storage), _nothing_left_without_a_plan(storage):
            plan = _planned(job, sources, storage, options)
            lock = lock_job(storage, options.part)
            stack.callback(lock.release)
        first = job.first_pass()
        if first is not None:
            first_output = _run_first_pass(first, plan, storage, options, listener)
            with entry(storage):
                job.use_first_pass(first_output)
        report = _Run(job, storage, options, listener).run(plan, lock)
    _check_failures(report)
    _check_rows(report, job, storage)
    return report


def _run_first_pass(job: Job, plan: Plan, storage: Storage, options: RunOptions, listener: Listener) -> Storage:
    """Run `job` over the units of `plan` in a folder of their own, and return that; what is finished stays so."""
    inner = open_storage(f"{storage.url}/{FIRST_PASS}")
    listener.note(f"First, {job.verb} goes over all sources.")
    with ExitStack() as stack:
        with entry(inner):
            copy_plan(plan, storage, inner, header_of(job))
            inner_plan = load_plan(inner, plan.roots)
            assert inner_plan is not None, "it has just been stored"
            lock = lock_job(inner, options.part)
            stack.callback(lock.release)
        inner_options = replace(options, limit=None, max_rejects=1.0, check_space=False)
        report = _Run(job, inner, inner_options, listener).run(inner_plan, lock)
    _check_failures(report)
    if not report.summary.complete:
        raise CodectokError(
            f"The first pass is not complete: {report.summary.units} of {report.summary.planned_units} units are;"
            " run the same command again once the other parts have done theirs."
        )
    return inner


@contextmanager
def _nothing_left_without_a_plan(storage: Storage) -> Iterator[None]:
    """Leave no trace in the output folder if the job cannot even be planned; within `entry`, so that nobody else is."""
    try:
        yield
    except BaseException:
        if PLAN_FILE not in storage.sizes():
            storage.remove(JOB_FOLDER)
            storage.remove_if_empty()
        raise


def _planned(job: Job, sources: Sequence[str], storage: Storage, options: RunOptions) -> Plan:
    """The stored plan of this very job, made or extended first where it must be."""
    arguments, roots = parse_arguments(sources, job.kinds)
    plan = load_plan(storage, roots)
    if plan is not None:
        refuse_other_job(plan, job, arguments, storage, options.extend)
    if plan is None or options.extend:
        if plan is not None:
            lock_job(storage, None).release()  # no other run may be using the old plan
        plan = add_sources(job, storage, plan, arguments, roots, storage.url)
    return plan


@dataclass
class _Run:
    """One run of a job, which holds its lock."""

    job: Job
    storage: Storage
    options: RunOptions
    listener: Listener
    failed: list[FailedUnit] = field(default_factory=list)

    def run(self, plan: Plan, lock: Lock) -> JobReport:
        part = self.options.part
        folder = OutputFolder(self.storage, "whole" if part is None else f"part-{part.index}-of-{part.count}")
        records = finished_units(self.storage, plan)
        units = units_to_do(plan, records, self.options)
        self._check_space(plan, units)
        folder.clear_unrecorded(units)
        self.listener.planned(plan, list(records.values()), units)
        suspects = folder.clear_attempts()
        total = Tally.sum(record.total for record in records.values())
        try:
            if units:
                with closing(self._outcomes(plan, units, folder, suspects)) as outcomes:
                    for outcome in outcomes:
                        if isinstance(outcome, FailedUnit):
                            self.failed.append(outcome)
                            where = folder.note_failure(outcome.unit, outcome.details or outcome.message)
                            self.listener.note(f"Unit {outcome.unit} failed: {outcome.message} (see {where}).")
                            continue
                        record, attempt = outcome
                        lock.check()
                        folder.commit(record, attempt)
                        records[record.unit] = record
                        self.listener.finished(record)
                        total = Tally.sum([total, record.total])
                        if total.inputs >= INPUTS_BEFORE_JUDGEMENT:
                            self._check_rejects(total)
        finally:
            folder.clear_attempts()
        self._check_rejects(total)
        self._finish_if_complete(plan)
        new_units = len(units) - len(self.failed)
        return JobReport(JobSummary.of(plan, records.values()), new_units, tuple(self.failed))

    def _outcomes(
        self, plan: Plan, units: Sequence[int], folder: OutputFolder, suspects: set[int]
    ) -> Generator[Outcome, None, None]:
        options = self.options
        self.job.use_plan(plan)
        if options.engine == "local":
            return run_locally(self.job, plan, units, folder, suspects)
        cluster = ClusterOptions(options.workers, options.address, options.gpus, options.deadline_seconds)
        return run_on_ray(self.job, plan, units, folder, cluster, self.listener)

    def _finish_if_complete(self, plan: Plan) -> None:
        """Describe the whole, if this run has made the last unit of it, whoever made the others."""
        with entry(self.storage):
            records = finished_units(self.storage, plan)
            ordered = [records[number] for number in sorted(records)]
            if len(records) < len(plan.units):
                return
            # Whatever is written now is written within `entry`.
            clear_temporaries(self.storage)
            if not is_marked_finished(self.storage, plan, ordered):
                described = self.job.finish(self.storage, ordered)
                self.storage.remove(TEMPORARY)
                summary = JobSummary.of(plan, ordered)
                write_report(self.storage, self.job, summary, self.job.examples(self.storage, ordered))
                write_summary(self.storage, plan, summary, ordered, [*described, REPORT_FILE])

    def _check_rejects(self, total: Tally) -> None:
        limit = self.options.max_rejects
        if total.errors > limit * total.inputs:
            raise CodectokError(
                f"{total.errors:,} of {total.inputs:,} inputs are broken ({total.errors / total.inputs:.0%}), more than"
                f" --max-rejects {limit:g}; see {self.storage.url}/{REJECTS_FOLDER}, then go on with a higher limit."
            )

    def _check_space(self, plan: Plan, units: Sequence[int]) -> None:
        free = self.storage.free_bytes()
        seconds = sum(plan.units[unit].estimated_seconds for unit in units)
        needed = seconds * self.job.output_bytes_per_second
        if self.options.check_space and free is not None and needed > free:
            raise InputError(
                f"{self.storage.url} has {free / 1e9:,.1f} GB of free space, but about {needed / 1e9:,.1f} GB would be"
                " written; make room, or pass --no-space-check if you know better."
            )


def units_to_do(plan: Plan, records: Mapping[int, UnitRecord], options: RunOptions) -> list[int]:
    """The units that a run with these options makes, if those of `records` are finished."""
    part = options.part
    return [
        unit.number
        for unit in plan.units
        if unit.number not in records and (part is None or part.includes(unit.number))
    ][: options.limit]


def _check_failures(report: JobReport) -> None:
    if report.failed:
        names = ", ".join(str(failure.unit) for failure in report.failed)
        hopeless = all(failure.lasting for failure in report.failed)
        advice = "" if hopeless else "; run the same command again to try them once more"
        raise CodectokError(
            f"{len(report.failed)} of {report.summary.planned_units} units failed ({names}; the first:"
            f" {report.failed[0].message}){advice}."
        )


def _check_rows(report: JobReport, job: Job, storage: Storage) -> None:
    if report.summary.complete and not report.summary.total.rows:
        total = report.summary.total
        if not total.rejects and total.ignored:
            raise CodectokError(f"Nothing was written: of {total.ignored:,} files none is audio.")
        if not total.rejects:
            raise CodectokError("Nothing was written: there is nothing in the sources.")
        raise CodectokError(
            f"Nothing was written: all inputs were rejected ({describe_rejects(total)});"
            f" see {storage.url}/{REJECTS_FOLDER}."
            + "".join(f" {sentence}" for sentence in job.advice(report.summary.datasets))
        )


def describe_rejects(total: Tally) -> str:
    """Rejects by reason, the most frequent first, in a few words."""
    counts = sorted(total.rejects.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {reason}" for reason, count in counts) or "none"
