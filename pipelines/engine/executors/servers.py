"""Servers of a run: their number follows the GPUs of the cluster, and each serves several workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from codectok.errors import InputError
from codectok.pipelines.engine.job import Server
from codectok.pipelines.engine.timing import RunTimer

from .ray_cluster import cluster_resource
from .server_actor import Actor, ServerStart, ServerUse, answer_of, start_server

POLL_SECONDS = 1.0
ANSWER_SECONDS = 2.0
WAITING_NOTE_SECONDS = 30.0


@dataclass(eq=False)
class Seat:
    """A server, and the number of workers that it serves.

    Attributes:
        actor: its actor.
        starting: reference of its start; None once it is ready.
        node: identity of its machine; None until it is ready.
        workers: number of its workers.
    """

    actor: Actor
    starting: Any
    node: str | None = None
    workers: int = 0


class ServerGroup:
    """Servers on each of some GPUs, or one if it needs no GPU; empty if a job has none.

    Args:
        server: to start; None for none.
        gpus: number of GPUs; None for all.
        alone: the Ray runs nothing else, on this machine: workers need not wait for their server, since nobody takes
            its place.
        grows: machines may join the cluster during the run; one without a GPU waits for one.
        on_note: receives notes.
        timer: receives the times of the servers.

    Raises:
        InputError: the server needs a GPU, and the cluster has none.
    """

    def __init__(
        self,
        server: Server | None,
        gpus: int | None,
        alone: bool,
        grows: bool,
        on_note: Callable[[str], None],
        timer: RunTimer,
    ) -> None:
        self._server, self._gpus, self._alone, self._grows = server, gpus, alone, grows
        self._on_note, self._timer = on_note, timer
        self._begun = time.monotonic()
        self._seats: list[Seat] = []
        self._phases: list[dict[str, float]] = []
        if server is not None:
            self._fill(server_count(server, gpus))

    @property
    def exists(self) -> bool:
        """True if the job has servers."""
        return self._server is not None

    @property
    def cores(self) -> int:
        """Cores that the servers take."""
        return len(self._seats) if self._server is not None and self._server.gpus else 0

    @property
    def gpus(self) -> int:
        """GPUs that the servers take."""
        return self.cores // max(1, servers_per_gpu(self._server)) if self._server is not None else 0

    def seat(self) -> Seat | None:
        """Server with the fewest workers; None if none is ready to have some."""
        usable = [seat for seat in self._seats if self._alone or seat.starting is None]
        return min(usable, key=lambda seat: seat.workers, default=None)

    def wait(self) -> None:
        """Wait until a server is ready; until all are if nothing else runs in this Ray."""
        last_note = time.monotonic()
        while self._seats and any(seat.starting for seat in self._seats):
            self._look(POLL_SECONDS)
            if not self._alone and any(seat.starting is None for seat in self._seats):
                return
            if time.monotonic() - last_note > WAITING_NOTE_SECONDS:
                self._on_note("No GPU is ready yet; other programs may use them, or their machine is gone.")
                last_note = time.monotonic()

    def update(self, nodes: Collection[str]) -> list[Seat]:
        """Follow the cluster: give up servers of machines that are gone, and start servers on new GPUs.

        Args:
            nodes: identities of the machines.

        Returns:
            Servers that are gone. Their workers wait for them in vain; `kill` them after their workers.
        """
        if self._server is None:
            return []
        self._look(0.0)
        gone = [seat for seat in self._seats if seat.node is not None and seat.node not in nodes]
        self._seats = [seat for seat in self._seats if seat not in gone]
        if self._server.gpus and (self._grows or gone):
            available = int(cluster_resource("GPU"))
            count = min(self._gpus or available, available) * servers_per_gpu(self._server)
            # One without a place waits for a machine, and tells an autoscaler that one is needed.
            self._fill(max(1, count))
        elif gone:
            self._fill(1)
        return gone

    def measure(self) -> float | None:
        """Return the share of the time in which GPUs or servers were busy; None if a server does not answer."""
        import ray
        from ray.exceptions import RayError

        actors = [seat.actor for seat in self._seats if seat.starting is None]
        if not actors:
            return None
        try:
            uses: list[ServerUse] = ray.get([actor.use.remote() for actor in actors], timeout=ANSWER_SECONDS)
        except RayError:
            return None
        ready = max(sum(use.ready for use in uses), 1e-9)
        self._timer.server_busy = min(1.0, sum(use.busy for use in uses) / ready)
        measured = [use.gpu for use in uses if use.gpu is not None]
        self._timer.gpu_busy = min(1.0, sum(measured) / ready) if len(measured) == len(uses) else None
        return self._timer.server_busy if self._timer.gpu_busy is None else self._timer.gpu_busy

    def stop(self) -> None:
        """Kill all servers."""
        for seat in self._seats:
            kill(seat)

    def _fill(self, count: int) -> None:
        assert self._server is not None, "a job without servers starts none"
        for _ in range(count - len(self._seats)):
            actor = start_server(self._server)
            self._seats.append(Seat(actor, actor.start.remote()))

    def _look(self, seconds: float) -> None:
        """Wait so long at most for servers that are starting, and note the ones that are ready."""
        import ray

        starting: dict[Any, Seat] = {seat.starting: seat for seat in self._seats if seat.starting is not None}
        if not starting:
            return
        ready, _ = ray.wait(list(starting), num_returns=len(starting), timeout=seconds)
        for reference in ready:
            start: ServerStart = answer_of(reference)
            starting[reference].starting, starting[reference].node = None, start.node
            self._phases.append(start.phases)
        if ready:
            self._timer.servers_ready(self._phases, time.monotonic() - self._begun)


def kill(seat: Seat) -> None:
    """Kill a server; Ray may be starting it again elsewhere."""
    import ray

    ray.kill(seat.actor)


def server_count(server: Server, gpus: int | None) -> int:
    """Number of servers on `gpus` GPUs of the cluster (None for all); 1 for a server that needs none.

    Raises:
        InputError: the server needs a GPU, and the cluster has none.
    """
    if not server.gpus:
        return 1
    available = int(cluster_resource("GPU"))
    if available == 0:
        raise InputError("The Ray cluster has no GPU; run on machines that have one, or with --device cpu.")
    return min(gpus or available, available) * servers_per_gpu(server)


def servers_per_gpu(server: Server) -> int:
    """Number of servers that share a GPU; 0 if they need none."""
    return round(1 / server.gpus) if server.gpus else 0
