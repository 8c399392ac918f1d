"""Dry run: the plan and the amount of work of a run, without writing anything."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codectok.pipelines.engine.job import Job, WorkerContext
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.output.folder import check_free, finished_units
from codectok.pipelines.engine.output.record_set import UnitRecords
from codectok.storage import Storage, open_storage

from .cutting import TABLE_BYTES_PER_SECOND
from .plan import PLAN_FILE, PLAN_FOLDER, Plan
from .retries import units_to_try_again
from .start import PlanRequest, units_to_do


@dataclass(frozen=True)
class Preview:
    """Amount of work of a run.

    Attributes:
        sources: number of files listed.
        ignored: number of other files.
        units: number of units in the plan.
        finished_units: number of units that are complete already.
        units_to_do: number of units that this run would make.
        estimated_seconds: audio in them.
        estimated_bytes_to_read: size of their sources if these are tables or texts; None if they are audio.
        estimated_bytes: size of their output.
        free_bytes: free space of the output; None if unknown.
        example: the first sources.
    """

    sources: int
    ignored: int
    units: int
    finished_units: int
    units_to_do: int
    estimated_seconds: float
    estimated_bytes_to_read: float | None
    estimated_bytes: float
    free_bytes: int | None
    example: tuple[str, ...]


def preview_job(job: Job, sources: Sequence[str], output: str | Path, options: RunOptions | None = None) -> Preview:
    """Estimate the work of `run_job` with the same arguments; writes nothing.

    Raises:
        InputError: as in `run_job`.
    """
    options = options or RunOptions()
    request = _request(job, sources, output, options)
    storage = request.output
    plan = request.planned() or _plan_in_memory(request)[1]
    done, to_do = _done_and_to_do(request, plan, options)
    seconds = float(plan.units.estimated_seconds[to_do].sum())
    return Preview(
        sources=plan.n_sources,
        ignored=plan.ignored,
        units=len(plan.units),
        finished_units=len(done),
        units_to_do=len(to_do),
        estimated_seconds=seconds,
        estimated_bytes_to_read=None if job.cutting.unit_bytes is None else seconds * TABLE_BYTES_PER_SECOND,
        estimated_bytes=seconds * job.output_bytes_per_second,
        free_bytes=storage.free_bytes(),
        example=tuple(source.where for source in plan.unit(0).sources[:5]),
    )


@dataclass(frozen=True)
class PlannedWork:
    """Work of a run.

    Attributes:
        context: state of a worker; a storage in memory holds its plan.
        units: numbers of the units that the run would make.
    """

    context: WorkerContext
    units: Sequence[int]


def plan_work(job: Job, sources: Sequence[str], output: str | Path, options: RunOptions | None = None) -> PlannedWork:
    """Plan the work of `run_job` with the same arguments; writes nothing to `output`.

    Raises:
        InputError: as in `run_job`.
    """
    options = options or RunOptions()
    request = _request(job, sources, output, options)
    memory, plan = _plan_in_memory(request)
    return PlannedWork(WorkerContext(memory, request.roots), _done_and_to_do(request, plan, options)[1])


def _done_and_to_do(request: PlanRequest, plan: Plan, options: RunOptions) -> tuple[UnitRecords, list[int]]:
    """Return the records of finished units, and the numbers of the units that a run would make."""
    done = UnitRecords() if request.stored is None else finished_units(request.output, request.stored)
    again = units_to_try_again(request.output, plan, done)
    return done, units_to_do(plan, done.keys() - again, options)


def _request(job: Job, sources: Sequence[str], output: str | Path, options: RunOptions) -> PlanRequest:
    storage = open_storage(output)
    check_free(storage)
    return PlanRequest.of(job, sources, storage, options.extend, options.strict)


def _plan_in_memory(request: PlanRequest) -> tuple[Storage, Plan]:
    memory = open_storage(f"memory://codectok-preview-{uuid.uuid4().hex}")
    if request.stored is not None:
        for name in (PLAN_FILE, *request.output.sizes(PLAN_FOLDER)):
            memory.write(name, request.output.read(name))
    return memory, request.planned() or request.list_and_store(memory)
