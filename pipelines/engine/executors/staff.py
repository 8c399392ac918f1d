"""The workers of a run on Ray: starts and ends their actors, each beside a server if the job has some."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from codectok.formatting import counted
from codectok.pipelines.engine.job import Job, WorkerContext
from codectok.pipelines.engine.timing import RunTimer

from .node_facts import node_facts
from .placement import Placement, describe_cluster
from .ray_cluster import cluster_resource, current_umask
from .server_actor import Actor
from .servers import Seat, ServerGroup
from .worker import Worker

# Label that Ray gives each machine.
NODE_LABEL = "ray.io/node-id"


@dataclass(eq=False)
class Member:
    """A worker.

    Attributes:
        actor: its actor.
        seat: its server; None if the job has none.
        node, host: identity and name of its machine; empty until it is ready.
    """

    actor: Actor
    seat: Seat | None
    node: str = ""
    host: str = ""


class Staff:
    """The workers of a run.

    Args:
        job: sent to every worker.
        context: sent to every worker, which adds its server.
        placement: decides how many workers there are.
        servers: servers of the job; workers are spread over them.
        timer: receives the times of workers.
    """

    def __init__(
        self, job: Job, context: WorkerContext, placement: Placement, servers: ServerGroup, timer: RunTimer
    ) -> None:
        import ray

        self._job, self._context, self._placement = job, context, placement
        self._servers, self._timer = servers, timer
        self._actor_class: Any = ray.remote(num_cpus=job.threads)(Worker)
        self._umask = current_umask()
        self._members: dict[Member, None] = {}
        self._unfit: set[str] = set()
        self._facts = node_facts() if placement.grows else None

    def __len__(self) -> int:
        return len(self._members)

    def all(self) -> list[Member]:
        """The workers, in the order of their starts."""
        return list(self._members)

    def served_by(self, seat: Seat) -> Iterable[Member]:
        """The workers of a server."""
        return [member for member in self._members if member.seat is seat]

    def wanted(self, units: int) -> int:
        """Number of workers that `units` and the cluster ask for."""
        return self._placement.workers(int(cluster_resource("CPU")) - self._servers.cores, units)

    def avoid(self, node: str) -> None:
        """Start no more workers on a machine."""
        self._unfit.add(node)

    def start(self) -> tuple[Member, Any] | None:
        """Start a worker; return it and the reference of its start, or None if no server is ready for it."""
        seat = self._servers.seat()
        if self._servers.exists and seat is None:
            return None
        actor_class = self._actor_class.options(**self._place(seat))
        server = None if seat is None else seat.actor
        member = Member(actor_class.remote(self._job, self._context, server, self._umask, self._facts), seat)
        self._members[member] = None
        if seat is not None:
            seat.workers += 1
        self._timer.begin_worker(member)
        reference: Any = member.actor.start.remote()
        return member, reference

    def end(self, member: Member, reason: str = "") -> None:
        """Kill a worker; with a reason if it has died, hangs, or could not start."""
        import ray

        ray.kill(member.actor)
        del self._members[member]
        if member.seat is not None:
            member.seat.workers -= 1
        self._timer.end_worker(member, reason)

    def describe_waiting(self, units: int) -> str:
        """Tell why no worker is ready for `units` that wait."""
        if not self._placement.grows:
            return "No worker is ready yet: each loads its libraries and the codec."
        needs = counted(self._job.threads, "free CPU") + (" beside a GPU" if self._servers.cores else "")
        return (
            f"No worker is ready: {counted(units, 'unit')} left, which need a machine with {needs}; the Ray cluster has"
            f" {describe_cluster()}."
        )

    def _place(self, seat: Seat | None) -> dict[str, Any]:
        """Options of an actor: beside its server, so that their data stays on the machine, or on no unfit machine."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy, NotIn

        if seat is not None and seat.node is not None:
            return {"scheduling_strategy": NodeAffinitySchedulingStrategy(seat.node, soft=True)}
        if not self._unfit:
            return {}
        but_not: Any = NotIn
        label = {NODE_LABEL: but_not(*sorted(self._unfit))}
        return {"scheduling_strategy": NodeLabelSchedulingStrategy(hard=label)}
