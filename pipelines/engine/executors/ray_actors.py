"""Runs units on Ray: starts the cluster if needed, then the servers and a pool of workers."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch

from codectok.pipelines.engine.job import Job, WorkerContext
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.output.folder import OutputFolder
from codectok.pipelines.engine.planning.plan import Plan
from codectok.pipelines.engine.progress import ProgressCallback

from .local import Outcome
from .ray_cluster import cluster_resource, ray_session
from .servers import RunningServer, servers_per_gpu, start_servers
from .worker_pool import WorkerPool


def run_on_ray(
    job: Job,
    context: WorkerContext,
    plan: Plan,
    units: Sequence[int],
    folder: OutputFolder,
    options: RunOptions,
    progress: ProgressCallback,
) -> Generator[Outcome, None, None]:
    """Run `units` on actors, and yield them in the order in which they finish."""
    import ray

    server = job.server
    per_gpu = servers_per_gpu(server) if server else 0
    # Every server of a GPU takes a core.
    expected = (options.gpus or torch.cuda.device_count()) * per_gpu
    with ray_session(options.address, options.cores_to_start(job.threads, expected)) as check_ray:
        servers: list[RunningServer] = []
        try:
            servers = start_servers(server, options.gpus, progress.note) if server else []
            cores = len(servers) if per_gpu else 0
            pool = WorkerPool(job, context, folder, options.deadline_seconds, progress, servers, check_ray)
            workers = options.worker_count(int(cluster_resource("CPU")) - cores, job.threads, len(units))
            progress.started(workers, job.threads, cores // max(1, per_gpu))
            try:
                yield from pool.run(plan, units, workers)
            finally:
                pool.stop()
        finally:
            for running in servers:
                ray.kill(running.actor)
