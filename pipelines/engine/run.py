"""Runs a job: plan, lock, first pass, units, commits, and the description of the finished output."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from codectok.errors import CodectokError, InputError, PassingError
from codectok.monitoring.monitor import RunMonitor
from codectok.names import JOB_FOLDER
from codectok.phases import PhaseClock
from codectok.pipelines.engine.executors.local import Outcome, run_locally
from codectok.pipelines.engine.executors.ray_actors import run_on_ray
from codectok.pipelines.engine.output.commits import open_commits
from codectok.pipelines.engine.output.folder import (
    TEMPORARY,
    MadeUnit,
    OutputFolder,
    check_free,
    clear_temporaries,
    finished_units,
)
from codectok.pipelines.engine.output.record_set import UnitRecords
from codectok.pipelines.engine.output.records import Counts, UnitRecord
from codectok.pipelines.engine.output.report import REPORT_FILE, write_report
from codectok.pipelines.engine.output.statistics import STATISTICS_FILE, write_statistics
from codectok.pipelines.engine.output.summary import JobSummary, is_marked_finished, write_summary
from codectok.pipelines.engine.output.unit_files import record_name
from codectok.pipelines.engine.planning.plan import PLAN_FILE, Plan, copy_plan
from codectok.pipelines.engine.planning.retries import have_new_times, passing_rejects, units_to_try_again
from codectok.pipelines.engine.planning.start import PlanRequest, reload_plan, units_to_do
from codectok.pipelines.engine.planning.store import header_of
from codectok.sources.rejects import REJECTS_FOLDER
from codectok.storage import Storage, open_storage

from .endings import check_failures, check_rows
from .faults import FailedUnit
from .job import Decision, FirstPass, Job, WorkerContext
from .lock import Lock, entry, lock_job, run_name
from .options import RunOptions
from .progress import NullProgress, ProgressCallback
from .run_log import RunLog
from .timing import END, FIRST_PASS, PLAN, RunTimer, RunTiming
from .watching import watched

# Number of inputs from which on the share of broken ones is checked while the job runs.
INPUTS_BEFORE_CHECK = 1000
FIRST_PASS_FOLDER = f"{JOB_FOLDER}/first-pass"
DECISION_HASH = f"{JOB_FOLDER}/decision.sha256"


@dataclass(frozen=True)
class JobReport:
    """Result of a run.

    Attributes:
        summary: totals of all complete units, including earlier runs.
        new_units: number of units made by this run.
        failed: units that could not be made.
        timing: times of this run; None if it made no unit.
    """

    summary: JobSummary
    new_units: int
    failed: tuple[FailedUnit, ...] = ()
    timing: RunTiming | None = None


def run_job(
    job: Job,
    sources: Sequence[str],
    output: str | Path,
    options: RunOptions | None = None,
    progress: ProgressCallback | None = None,
    clock: PhaseClock | None = None,
) -> JobReport:
    """Run `job` over `sources` into the folder `output`; the same call again continues a stopped run.

    Args:
        job: job to run.
        sources: folders, patterns, files, manifests, or URLs of them; `NAME=SOURCE` names a dataset.
        output: folder or URL, new or of the same job.
        options: how and where to run.
        progress: receives the plan and the progress.
        clock: clock of a command that began before this call; None to measure this call.

    Raises:
        InputError: sources that do not exist, an output that is locked or of another job, or too little space.
        CodectokError: units failed, too many inputs are broken, or none could be used.
    """
    options, progress = options or RunOptions(), progress or NullProgress()
    with watched(job, sources, output, options, progress) as events:
        timer = RunTimer(clock, events)
        timer.clock.switch(PLAN)
        storage = open_storage(output)
        check_free(storage)
        with ExitStack() as stack:
            with entry(storage) as entered, _clean_up_without_plan(storage):
                plan = _planned(job, sources, storage, options, entered)
                lock = lock_job(storage, options.part)
                stack.callback(lock.release)
            first_pass = decision = None
            if job.first_pass is not None:
                with timer.clock.during(FIRST_PASS):
                    first_pass, decision = _run_first_pass(job.first_pass, plan, storage, options, progress, events)
            context = WorkerContext(storage, plan.roots, first_pass)
            log = RunLog(storage, options, progress, timer, events)
            report = _Run(job, context, options, log, timer, decision).run(plan, lock)
        check_failures(report)
        check_rows(report, job, storage)
    return report


def _planned(job: Job, sources: Sequence[str], storage: Storage, options: RunOptions, entered: Lock) -> Plan:
    request = PlanRequest.of(job, sources, storage, options.extend, options.strict)
    plan = request.planned()
    if plan is not None:
        return plan
    if request.stored is not None:
        # Raises if another run still uses the old plan.
        lock_job(storage, None).release()
    return request.list_and_store(storage, entered.check)


def _run_first_pass(
    first: FirstPass, plan: Plan, storage: Storage, options: RunOptions, progress: ProgressCallback, events: RunMonitor
) -> tuple[Storage, bytes]:
    """Run the first pass over the units of `plan` in a folder inside the output.

    Returns:
        that folder, and the hash of what is decided.
    """
    inner = open_storage(f"{storage.url}/{FIRST_PASS_FOLDER}")
    progress.note(f"First, {first.job.verb} runs over all sources.")
    with ExitStack() as stack:
        with entry(inner):
            copy_plan(plan, storage, inner, header_of(first.job))
            inner_plan = reload_plan(inner, plan.roots)
            lock = lock_job(inner, options.part)
            stack.callback(lock.release)
        inner_options = replace(options, limit=None, max_rejects=1.0, check_space=False)
        context = WorkerContext(inner, inner_plan.roots)
        inner_events = stack.enter_context(events.first_pass(first.job.verb))
        timer = RunTimer(events=inner_events)
        log = RunLog(inner, inner_options, progress, timer, inner_events)
        report = _Run(first.job, context, inner_options, log, timer).run(inner_plan, lock)
    check_failures(report)
    if not report.summary.complete:
        raise CodectokError(
            f"The first pass is not complete: {report.summary.units} of {report.summary.planned_units} units are"
            " finished; run the same command again once the other parts have finished their share."
        )
    with entry(storage) as entered:
        decision = first.decide(inner)
        entered.check()
        return inner, _store_decision(decision, inner, storage)


def _store_decision(decision: Decision, inner: Storage, storage: Storage) -> bytes:
    """Store the decision of a first pass in its output `inner`, forget the units that it changes, and return its hash.

    A run of another share that has begun with another decision looks at the hash after each commit. The decision is
    written last, so that a run that is killed before decides, and forgets, the same again.
    """
    digest = hashlib.sha256(decision.data).hexdigest().encode()
    is_stored = inner.sizes().keys() >= {decision.file, DECISION_HASH}
    if is_stored and not decision.units and inner.read(DECISION_HASH) == digest:
        return digest
    inner.write(DECISION_HASH, digest)
    for unit in decision.units:
        storage.remove_file(record_name(unit))
    inner.write(decision.file, decision.data)
    return digest


@contextmanager
def _clean_up_without_plan(storage: Storage) -> Iterator[None]:
    """Delete the job's folder if the job cannot be planned; within `entry`, so that no other run uses it."""
    try:
        yield
    except BaseException:
        if PLAN_FILE not in storage.sizes():
            storage.remove(JOB_FOLDER)
            storage.remove_if_empty()
        raise


@dataclass
class _Run:
    """One run of a job, which holds its lock; `decision` is the hash of what its first pass has decided."""

    job: Job
    context: WorkerContext
    options: RunOptions
    progress: RunLog
    timer: RunTimer
    decision: bytes | None = None
    failed: list[FailedUnit] = field(default_factory=list)

    def run(self, plan: Plan, lock: Lock) -> JobReport:
        """Make the units that are missing, and describe the output if it is complete."""
        storage = self.context.output
        folder = OutputFolder(storage, run_name(self.options.part))
        records = finished_units(storage, plan)
        again = units_to_try_again(storage, plan, records)
        units = units_to_do(plan, records.keys() - again, self.options)
        for number in units:
            records.discard(number)
        self._note_new_conditions(plan, again.intersection(units), units)
        if units and records:
            for note in self.job.resume_notes(storage, records.ordered):
                self.progress.note(note)
        self._check_space(plan, units)
        with self.progress.recorded(plan, units, lock):
            return self._make(plan, records, units, folder, lock)

    def _make(
        self, plan: Plan, records: UnitRecords, units: Sequence[int], folder: OutputFolder, lock: Lock
    ) -> JobReport:
        """Make `units`, add them to `records`, and finish the job if no other unit is missing."""
        folder.clear_unrecorded(units)
        self.progress.planned(plan, records.ordered, units)
        suspects = folder.clear_attempts()
        total = Counts.sum(record.total for record in records.values())
        try:
            if units:
                outcomes = self._outcomes(plan, units, folder, suspects)
                with closing(outcomes), closing(self._commit(outcomes, folder, lock)) as committed:
                    for record in committed:
                        records.add(record)
                        total = Counts.sum([total, record.total])
                        if total.inputs >= INPUTS_BEFORE_CHECK:
                            self._check_rejects(total)
        finally:
            folder.clear_attempts()
        passing = passing_rejects(total)
        if passing:
            self.progress.note(
                f"{passing:,} inputs have changed or were out of reach; once they are as planned, the same command"
                " tries them again."
            )
        self.timer.clock.switch(END)
        self._check_rejects(total)
        lock.check()
        self._finish_if_complete(plan, records)
        new_units = len(units) - len(self.failed)
        summary = JobSummary.of(plan, records.ordered)
        return JobReport(summary, new_units, tuple(self.failed), self.timer.timing())

    def _note_new_conditions(self, plan: Plan, again: set[int], units: Sequence[int]) -> None:
        if again:
            self.progress.note(f"Inputs of {len(again):,} units that were changed or out of reach are tried again.")
        if have_new_times(plan, units):
            self.progress.note(
                "Files have other times than when the job was planned; they are read if their sizes and blocks of their"
                " contents are the same."
            )

    def _outcomes(
        self, plan: Plan, units: Sequence[int], folder: OutputFolder, suspects: set[int]
    ) -> Generator[Outcome | None, None, None]:
        if self.options.engine == "local":
            return run_locally(self.job, self.context, plan, units, folder, suspects, self.timer)
        return run_on_ray(self.job, self.context, plan, units, folder, self.options, self.progress, self.timer)

    def _commit(
        self, outcomes: Iterator[Outcome | None], folder: OutputFolder, lock: Lock
    ) -> Generator[UnitRecord, None, None]:
        """Commit finished units, and record failed ones."""
        # Without Ray the next outcome comes a whole unit later.
        with open_commits(folder, one_by_one=self.options.engine == "local") as commits:
            for outcome in outcomes:
                lock.check()
                for made in commits.committed():
                    yield self._note_commit(made)
                if outcome is None:
                    continue
                if isinstance(outcome, FailedUnit):
                    self._note_failure(outcome, folder)
                    continue
                for made in commits.add(*outcome):
                    yield self._note_commit(made)
            for made in commits.finish():
                yield self._note_commit(made)

    def _note_failure(self, failed: FailedUnit, folder: OutputFolder) -> None:
        self.failed.append(failed)
        self.timer.end_unit(failed.unit)
        self.progress.gave_up(failed)
        where = folder.write_failure(failed.unit, failed.details or failed.message)
        self.progress.note(f"Unit {failed.unit} failed: {failed.message} (see {where}).")

    def _note_commit(self, made: MadeUnit) -> UnitRecord:
        record, first_pass = made.record, self.context.first_pass
        if first_pass is not None and first_pass.read(DECISION_HASH) != self.decision:
            self.context.output.remove_file(record_name(record.unit))
            raise PassingError(
                f"Inputs of {self.context.output.url} can be read again, for which another run has changed what the"
                " first pass decides; run the same command again."
            )
        self.timer.end_unit(record.unit)
        self.progress.made(made)
        self.timer.finish_unit(made.phases, record.total.input_seconds)
        self.progress.finished(record)
        return record

    def _finish_if_complete(self, plan: Plan, known: UnitRecords) -> None:
        """Describe the whole output if all units are complete, including units of other runs."""
        storage = self.context.output
        with entry(storage) as entered:
            records = finished_units(storage, plan, known)
            ordered = records.ordered
            self.progress.complete = len(records) == len(plan.units)
            if not self.progress.complete:
                return
            entered.check()
            # Files that other runs are writing are held.
            clear_temporaries(storage)
            if not is_marked_finished(storage, plan, ordered):
                reporter = self.job.reporter
                summary = JobSummary.of(plan, ordered)
                described = reporter.write_files(storage, ordered, summary.total)
                statistics = reporter.statistics(storage, summary.total)
                write_statistics(storage, statistics, self.timer.timing())
                storage.remove(TEMPORARY)
                write_report(storage, self.job, summary, reporter.examples(storage, ordered))
                write_summary(storage, plan, summary, ordered, [*described, STATISTICS_FILE, REPORT_FILE])

    def _check_rejects(self, total: Counts) -> None:
        limit = self.options.max_rejects
        if total.errors > limit * total.inputs:
            raise CodectokError(
                f"{total.errors:,} of {total.inputs:,} inputs are broken ({total.errors / total.inputs:.0%}), more than"
                f" --max-rejects {limit:g}; see {self.context.output.url}/{REJECTS_FOLDER}, then continue with a higher"
                " limit."
            )

    def _check_space(self, plan: Plan, units: Sequence[int]) -> None:
        storage = self.context.output
        free = storage.free_bytes()
        seconds = float(plan.units.estimated_seconds[list(units)].sum())
        needed = seconds * self.job.output_bytes_per_second
        if self.options.check_space and free is not None and needed > free:
            raise InputError(
                f"{storage.url} has {free / 1e9:,.1f} GB of free space, but the output needs about"
                f" {needed / 1e9:,.1f} GB; make room, or pass --no-space-check."
            )
