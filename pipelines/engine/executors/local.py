"""Runs units one after the other in this process."""

from __future__ import annotations

import traceback
from collections.abc import Generator, Sequence

import torch

from codectok.pipelines.engine.faults import (
    ATTEMPTS,
    FailedUnit,
    LastingUnitError,
    describe,
    run_despite_crashes,
    stops_the_job,
)
from codectok.pipelines.engine.job import Job, UnitRecord
from codectok.pipelines.engine.output import OutputFolder, run_attempt
from codectok.pipelines.engine.plan import Plan

Outcome = tuple[UnitRecord, str] | FailedUnit


def run_locally(
    job: Job, plan: Plan, units: Sequence[int], folder: OutputFolder, suspects: set[int]
) -> Generator[Outcome, None, None]:
    """Run `units`, each with the folder of its attempt; `suspects` were being run when an earlier process died."""
    threads = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    try:
        job.set_up()
        for number in units:
            yield _run(job, plan, number, folder, number in suspects)
    finally:
        torch.set_num_threads(threads)


def _run(job: Job, plan: Plan, number: int, folder: OutputFolder, suspect: bool) -> Outcome:
    unit = plan.unit(number)
    for turn in range(1, ATTEMPTS + 1):
        attempt = folder.attempt(number, turn)
        try:
            run = run_despite_crashes if suspect else run_attempt
            return run(job, unit, folder.storage, attempt), attempt
        except Exception as error:
            if stops_the_job(error):
                raise
            failure, details = describe(error), "".join(traceback.format_exception(error))
            folder.storage.remove(attempt)
            if isinstance(error, LastingUnitError):
                return FailedUnit(number, failure, details, lasting=True)
    return FailedUnit(number, failure, details)
