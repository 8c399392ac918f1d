"""Runs a job's units in this process or on Ray actors; the output's bytes are the same."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from codectok.errors import CodectokError, InputError

from .job import WORKER_THREADS, FinishedUnit, Job, JobSummary, OutputFile, UnitResult
from .output import REJECTS_FOLDER, OutputFolder, run_in_scratch
from .sources import Listing, Unit

if TYPE_CHECKING:
    from ray.actor import ActorHandle

EngineName = Literal["ray", "local"]
Outcome = tuple[Unit, UnitResult, tuple[OutputFile, ...]]


@dataclass(frozen=True)
class EngineOptions:
    """Where units run: parallelism and place, never what they write.

    Attributes:
        engine: "ray" (actors) or "local" (this process, one after the other).
        workers: Ray actors; all cores (or GPUs) of the cluster by default.
        address: of a Ray cluster to join; without one, `RAY_ADDRESS` or a Ray of this machine's own.
        gpus_per_worker: GPUs that each actor holds.
    """

    engine: EngineName = "ray"
    workers: int | None = None
    address: str | None = None
    gpus_per_worker: float = 0.0


@dataclass(frozen=True)
class JobReport:
    """How a job ended; `already_finished` where an earlier run had done it all."""

    summary: JobSummary
    already_finished: bool


def run_job(
    job: Job,
    listing: Listing,
    units: Sequence[Unit],
    output: Path,
    options: EngineOptions,
    on_unit: Callable[[FinishedUnit], None],
) -> JobReport:
    """Run all `units` of `job` into the folder `output`; `on_unit` hears of each as it is finished.

    Raises:
        InputError: the output folder is not free.
        CodectokError: a unit failed, or not one input could be used.
    """
    folder = OutputFolder(output)
    earlier = folder.finished_summary(job, listing)
    if earlier is None:
        try:
            folder.begin(job, listing)
            summary = _run_units(job, listing, units, folder, options, on_unit)
        except BaseException:
            folder.abandon()
            raise
    else:
        summary = earlier
    if not summary.rows:
        raise CodectokError(
            f"Nothing was written: all inputs were rejected ({describe_rejects(summary)});"
            f" see {output / REJECTS_FOLDER}."
        )
    return JobReport(summary, already_finished=earlier is not None)


def _run_units(
    job: Job,
    listing: Listing,
    units: Sequence[Unit],
    folder: OutputFolder,
    options: EngineOptions,
    on_unit: Callable[[FinishedUnit], None],
) -> JobSummary:
    run = _run_locally if options.engine == "local" else _run_on_ray
    finished: list[FinishedUnit] = []
    with closing(run(job, units, folder, options)) as outcomes:
        for outcome in outcomes:
            finished.append(folder.commit(*outcome))
            on_unit(finished[-1])
    # Units end in any order; what describes them all is made in theirs.
    finished.sort(key=lambda f: f.unit.number)
    summary = JobSummary.of(finished, listing.ignored)
    job.finish(folder.path, finished)
    folder.end(summary)
    return summary


def describe_rejects(summary: JobSummary) -> str:
    """Rejects by reason, the most frequent first, in a few words."""
    counts = sorted(summary.rejects.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {reason}" for reason, count in counts) or "none"


def _run_locally(job: Job, units: Sequence[Unit], folder: OutputFolder, _: EngineOptions) -> Iterator[Outcome]:
    threads = torch.get_num_threads()
    torch.set_num_threads(WORKER_THREADS)
    try:
        job.set_up()
        for unit in units:
            yield unit, *run_in_scratch(job, unit, folder.scratch(unit))
    finally:
        torch.set_num_threads(threads)


class _Worker:
    """Runs units in an actor's process."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.ready = False

    def run(self, unit: Unit, scratch: Path) -> tuple[UnitResult, tuple[OutputFile, ...]]:
        if not self.ready:  # not in the constructor: Ray would hide the reason of a failure there
            torch.set_num_threads(WORKER_THREADS)
            self.job.set_up()
            self.ready = True
        return run_in_scratch(self.job, unit, scratch)


def _run_on_ray(job: Job, units: Sequence[Unit], folder: OutputFolder, options: EngineOptions) -> Iterator[Outcome]:
    import ray

    started_here = not ray.is_initialized()
    if started_here:
        _start_ray(options)
    actors: list[ActorHandle] = []
    try:
        workers = min(_worker_count(options), len(units))
        actor_class = ray.remote(num_cpus=1, num_gpus=options.gpus_per_worker)(_Worker)
        actors = [actor_class.remote(job) for _ in range(workers)]
        yield from _feed(actors, units, folder)
    finally:
        for actor in actors:
            ray.kill(actor)
        if started_here:
            ray.shutdown()


def _feed(actors: list[ActorHandle], units: Sequence[Unit], folder: OutputFolder) -> Iterator[Outcome]:
    """Give each actor a unit at a time; units come back in the order in which they are finished."""
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    waiting = iter(units)
    running: dict[Any, tuple[ActorHandle, Unit]] = {}

    def start(actor: ActorHandle) -> None:
        unit = next(waiting, None)
        if unit is not None:
            running[actor.run.remote(unit, folder.scratch(unit).resolve())] = (actor, unit)

    for actor in actors:
        start(actor)
    while running:
        (ready, *_), _ = ray.wait(list(running))
        actor, unit = running.pop(ready)
        try:
            result, files = ray.get(ready)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, CodectokError | OSError):
                raise cause from None
            raise
        except RayActorError as error:
            first_line = str(error).strip().splitlines()[0]
            raise CodectokError(f"The worker of unit {unit.number} died: {first_line}") from None
        yield unit, result, files
        start(actor)


def _start_ray(options: EngineOptions) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray warns about a default of its own unless told which behaviour is meant; the new one is.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = options.address or os.environ.get("RAY_ADDRESS")
    settings: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:
        # "local": a Ray that somebody else has started on this machine is not joined unasked. Without --workers, Ray
        # itself counts the cores, those of a container included.
        settings |= {"include_dashboard": False, "num_cpus": options.workers}
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address or "local", **settings)
    except (ConnectionError, ValueError, RuntimeError) as error:
        first_line = str(error).strip().splitlines()[0]
        where = f"reached at {address}" if address else "started on this machine"
        raise CodectokError(f"Ray could not be {where}: {first_line}") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray's own handler would end the process without a word


def _worker_count(options: EngineOptions) -> int:
    import ray

    resources = ray.cluster_resources()
    capacity = int(resources.get("CPU", 0))
    if options.gpus_per_worker:
        capacity = min(capacity, int(resources.get("GPU", 0) / options.gpus_per_worker))
    if capacity == 0:
        raise InputError("The Ray cluster has no free place for a worker: it needs a CPU, and a GPU for --device cuda.")
    # An actor beyond that would wait for its place for ever, and its unit with it.
    return min(options.workers or capacity, capacity)
