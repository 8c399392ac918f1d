"""Runs units one after the other in this process."""

from __future__ import annotations

import gc
import socket
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial

import torch

from codectok.phases import PhaseClock
from codectok.pipelines.engine.crashes import run_despite_crashes
from codectok.pipelines.engine.faults import ATTEMPTS, FailedUnit, LastingUnitError, describe, stops_the_job
from codectok.pipelines.engine.job import Job, WorkerContext
from codectok.pipelines.engine.output.folder import MadeUnit, OutputFolder, run_attempt
from codectok.pipelines.engine.planning.plan import Plan
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.timing import WORKERS, RunTimer

Outcome = tuple[MadeUnit, str] | FailedUnit
"""A unit that was made with the folder of its attempt, or its failure."""
THIS_PROCESS = "this process"


def run_locally(
    job: Job,
    context: WorkerContext,
    plan: Plan,
    units: Sequence[int],
    folder: OutputFolder,
    suspects: set[int],
    timer: RunTimer,
) -> Generator[Outcome, None, None]:
    """Run `units` in their order; `suspects`, in progress when an earlier process died, run in child processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    timer.clock.switch(WORKERS)
    timer.begin_worker(THIS_PROCESS)
    freezes = False
    try:
        context = replace(context, clock=PhaseClock("start"))
        run = job.start(context)
        timer.worker_ready(THIS_PROCESS, context.clock.seconds(), socket.gethostname())

        def in_this_process(unit: Unit, attempt: str) -> MadeUnit:
            return run_attempt(run, unit, folder.storage, attempt)

        in_child = partial(run_despite_crashes, job, context)
        # Modules and the loaded job stay: garbage collection need not look at them again and again.
        freezes = not gc.get_freeze_count()
        if freezes:
            gc.freeze()
        for number in units:
            timer.begin_unit(number, socket.gethostname())
            yield _outcome(in_child if number in suspects else in_this_process, plan.unit(number), folder, timer)
    finally:
        if freezes:
            gc.unfreeze()
        timer.end_worker(THIS_PROCESS)
        torch.set_num_threads(threads)


def _outcome(make: Callable[[Unit, str], MadeUnit], unit: Unit, folder: OutputFolder, timer: RunTimer) -> Outcome:
    number = unit.number
    for turn in range(1, ATTEMPTS + 1):
        attempt = folder.attempt(number, turn)
        try:
            return make(unit, attempt), attempt
        except Exception as error:
            if stops_the_job(error):
                raise
            failure, details = describe(error), "".join(traceback.format_exception(error))
            folder.storage.remove(attempt)
            if isinstance(error, LastingUnitError):
                return FailedUnit(number, failure, details, lasting=True)
            if turn < ATTEMPTS:
                timer.retry_unit(number, failure)
                timer.begin_unit(number, socket.gethostname())
    return FailedUnit(number, failure, details)
