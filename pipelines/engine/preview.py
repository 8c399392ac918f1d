"""What a run of a job would do."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codectok.sources.arguments import Argument, parse_arguments
from codectok.storage import Storage, open_storage

from .cutting import TABLE_BYTES_PER_SECOND
from .job import Job
from .output import check_free, finished_units
from .plan import PLAN_FILE, PLAN_FOLDER, Plan, load_plan
from .planning import add_sources, refuse_other_job
from .run import RunOptions, units_to_do


@dataclass(frozen=True)
class Preview:
    """What a run would do.

    Attributes:
        sources, ignored: files listed, and passed over.
        units, finished_units: of the plan.
        units_to_do: that this run would make.
        estimated_seconds: of audio in them.
        estimated_bytes_to_read: of their sources, where those are rows of tables or texts and no audio; else None.
        estimated_bytes: of their output.
        free_bytes: None where nobody knows.
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
    """What `run_job` would do; nothing is written."""
    options = options or RunOptions()
    storage = open_storage(output)
    check_free(storage)
    arguments, roots = parse_arguments(sources, job.kinds)
    plan = load_plan(storage, roots)
    done = {}
    if plan is not None:
        refuse_other_job(plan, job, arguments, storage, options.extend)
        done = finished_units(storage, plan)
    if plan is None or options.extend:
        plan = _plan_beside(job, arguments, roots, storage, plan)
    to_do = [plan.units[number] for number in units_to_do(plan, done, options)]
    seconds = sum(unit.estimated_seconds for unit in to_do)
    example = tuple(source.where for source in plan.unit(0).sources[:5])
    return Preview(
        sources=plan.n_sources,
        ignored=plan.ignored,
        units=len(plan.units),
        finished_units=len(done),
        units_to_do=len(to_do),
        estimated_seconds=seconds,
        estimated_bytes_to_read=None if job.part_bytes is None else seconds * TABLE_BYTES_PER_SECOND,
        estimated_bytes=seconds * job.output_bytes_per_second,
        free_bytes=storage.free_bytes(),
        example=example,
    )


def _plan_beside(
    job: Job, arguments: tuple[Argument, ...], roots: dict[str, str], storage: Storage, before: Plan | None
) -> Plan:
    """The plan that a run would store, in memory."""
    shadow = open_storage(f"memory://codectok-preview-{uuid.uuid4().hex}")
    if before is not None:
        for name in (PLAN_FILE, *storage.sizes(PLAN_FOLDER)):
            shadow.write(name, storage.read(name))
    return add_sources(job, shadow, before, arguments, roots, storage.url)
