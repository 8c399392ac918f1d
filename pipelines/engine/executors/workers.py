"""The workers of a run on Ray: starts and ends their actors, each beside a server if the job has some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from codectok.formatting import counted
from codectok.pipelines.engine.job import Job, WorkerContext
from codectok.pipelines.engine.timing import RunTimer

from .cluster_nodes import Nodes
from .placement import Placement, describe_cluster
from .ray_cluster import current_umask
from .requirements import Requirements
from .server_actor import Actor, elsewhere
from .servers import ServerGroup, ServerHandle
from .worker import Worker


@dataclass(eq=False)
class WorkerHandle:
    """A worker.

    Attributes:
        actor: its actor.
        server: its server; None if the job has none.
        node, host: identity and name of its machine; empty until it is ready.
        call: reference of its last call.
    """

    actor: Actor
    server: ServerHandle | None
    node: str = ""
    host: str = ""
    call: Any = None


class WorkerGroup:
    """The workers of a run.

    Args:
        job: sent to every worker.
        context: sent to every worker, which adds its server.
        placement: decides how many workers there are.
        requirements: of their machines; None on the driver's machine.
        servers: servers of the job; workers are spread over them.
        timer: receives the times of workers.
    """

    def __init__(
        self,
        job: Job,
        context: WorkerContext,
        placement: Placement,
        requirements: Requirements | None,
        servers: ServerGroup,
        timer: RunTimer,
    ) -> None:
        import ray

        self._job, self._context, self._placement = job, context, placement
        self._requirements, self._servers, self._timer = requirements, servers, timer
        self._actor_class: Any = ray.remote(num_cpus=job.threads)(Worker)
        self._umask = current_umask()
        self._handles: dict[WorkerHandle, None] = {}
        self._unfit: set[str] = set()

    def __len__(self) -> int:
        return len(self._handles)

    def __contains__(self, handle: WorkerHandle) -> bool:
        return handle in self._handles

    def all(self) -> list[WorkerHandle]:
        """The workers, in the order of their starts."""
        return list(self._handles)

    def wanted(self, nodes: Nodes, units: int) -> int:
        """Number of workers that `units` and the machines ask for."""
        return self._placement.workers(int(nodes.total("CPU")) - self._servers.cores, units)

    def avoid(self, node: str) -> None:
        """Start no more workers on a machine."""
        self._unfit.add(node)

    def start(self) -> WorkerHandle | None:
        """Start a worker, whose call is its start; None if no server is ready for it."""
        server = self._servers.least_busy()
        if self._servers.exists and server is None:
            return None
        actor_class = self._actor_class.options(**self._place(server))
        serving = None if server is None else server.actor
        actor = actor_class.remote(self._job, self._context, serving, self._umask, self._requirements)
        handle = WorkerHandle(actor, server, call=actor.start.remote())
        self._handles[handle] = None
        if server is not None:
            server.workers += 1
        self._timer.begin_worker(handle)
        return handle

    def end(self, handle: WorkerHandle, reason: str = "") -> None:
        """Kill a worker; with a reason if it has died, hangs, or could not start."""
        import ray

        ray.kill(handle.actor)
        del self._handles[handle]
        if handle.server is not None:
            handle.server.workers -= 1
        self._timer.end_worker(handle, reason)

    def describe_waiting(self, nodes: Nodes, units: int) -> str:
        """Tell why no worker is ready for `units` that wait."""
        if not self._placement.grows:
            return "No worker is ready yet: each loads its libraries and the codec."
        needs = counted(self._job.threads, "free CPU") + (" beside a GPU" if self._servers.cores else "")
        return (
            f"No worker is ready: {counted(units, 'unit')} left, which need a machine with {needs}; the Ray cluster has"
            f" {describe_cluster(nodes)}, which other programs may use."
        )

    def _place(self, server: ServerHandle | None) -> dict[str, Any]:
        """Options of an actor: beside its server if there is room, so that their data stays on the machine."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if server is None or server.node is None:
            return elsewhere(self._unfit)
        beside = NodeAffinitySchedulingStrategy(server.node, soft=True, _spill_on_unavailable=True)
        return {"scheduling_strategy": beside}
