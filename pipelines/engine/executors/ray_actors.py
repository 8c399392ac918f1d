"""Runs units on Ray: starts the cluster if needed, then the servers and a pool of workers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress

import torch

from codectok.errors import PassingError
from codectok.pipelines.engine.job import Job, WorkerContext
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.output.folder import OutputFolder
from codectok.pipelines.engine.planning.plan import Plan
from codectok.pipelines.engine.progress import ProgressCallback
from codectok.pipelines.engine.scheduling.scheduler import Scheduler
from codectok.pipelines.engine.timing import RAY, WORKERS, RunTimer

from .local import Outcome
from .node_checks import check_nodes
from .placement import Placement
from .ray_address import cluster_address
from .ray_cluster import cluster_resource, has_joined, ray_session
from .requirements import Requirements
from .servers import ServerGroup, servers_per_gpu
from .worker_pool import WorkerPool
from .workers import WorkerGroup


def run_on_ray(
    job: Job,
    context: WorkerContext,
    plan: Plan,
    units: Sequence[int],
    folder: OutputFolder,
    options: RunOptions,
    progress: ProgressCallback,
    timer: RunTimer,
) -> Generator[Outcome | None, None, None]:
    """Run `units` on actors, and yield them in the order in which they finish; None about every second."""
    timer.clock.switch(RAY)
    import ray

    server = job.server
    per_gpu = servers_per_gpu(server) if server else 0
    # Every server of a GPU takes a core.
    expected = (options.gpus or torch.cuda.device_count()) * per_gpu
    joined = cluster_address(options.address) is not None and (has_joined() or not ray.is_initialized())
    alone = not ray.is_initialized() and not joined
    placement = Placement(job.threads, options.workers, grows=joined)
    scheduler = Scheduler(units, plan.units.weights(units), options.deadline_seconds)
    with ray_session(options.address, options.cores_to_start(job.threads, expected)) as check_ray:
        requirements = None
        if joined and units:
            requirements = Requirements.of(context.output, plan)
            progress.asked(check_nodes(context.output, requirements.sources, job))
        timer.clock.switch(WORKERS)
        servers = ServerGroup(server, options.gpus, alone, joined, progress.note, timer)
        try:
            workers = WorkerGroup(job, context, placement, requirements, servers, timer)
            pool = WorkerPool(folder, plan, scheduler, workers, servers, progress, check_ray, timer)
            places = placement.places(int(cluster_resource("CPU")) - servers.cores, len(units))
            try:
                if alone:
                    pool.fit_workers()  # workers and servers load their libraries at the same time
                servers.wait()
                progress.started(places, job.threads, servers.gpus)
                yield from pool.run()
            finally:
                _unless_lost(check_ray, pool.stop)
        finally:
            _unless_lost(check_ray, servers.stop)


def _unless_lost(check_ray: Callable[[], None], stop: Callable[[], None]) -> None:
    """Call `stop`, unless Ray is lost: its actors end themselves, and calls would wait for its head."""
    with suppress(PassingError):
        check_ray()
        stop()
