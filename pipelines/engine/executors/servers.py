"""Servers of a run: their number follows the GPUs of the cluster, and each serves several workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from codectok.errors import InputError
from codectok.formatting import counted
from codectok.pipelines.engine.faults import describe
from codectok.pipelines.engine.job import Server
from codectok.pipelines.engine.timing import RunTimer

from .cluster_nodes import Nodes
from .node_facts import node_facts
from .ray_cluster import cluster_resource
from .server_actor import Actor, ServerStart, ServerUse, Unfit, answer_of, start_server

POLL_SECONDS = 1.0
ANSWER_SECONDS = 2.0
WAITING_NOTE_SECONDS = 30.0
SILENT_SECONDS = 60.0
# GPUs without a place that a cluster that may grow is asked for; see `placement`.
MOST_SPARE_GPUS = 32


@dataclass(eq=False)
class ServerHandle:
    """A server, and the number of workers that it serves.

    Attributes:
        actor: its actor.
        starting: reference of its start; None once it is ready.
        node: identity of its machine; None until it is ready.
        workers: number of its workers.
        answered: when it last answered.
    """

    actor: Actor
    starting: Any
    node: str | None = None
    workers: int = 0
    answered: float = field(default_factory=time.monotonic)


class ServerGroup:
    """Servers on each of some GPUs, or one if it needs no GPU; empty if a job has none.

    Args:
        server: to start; None for none.
        gpus: number of GPUs; None for all.
        alone: the Ray runs nothing else, on this machine, so that workers can start at the same time.
        grows: machines may join the cluster during the run.
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
        self._facts = node_facts() if grows else None
        self._begun = self._told_silence = time.monotonic()
        self._handles: list[ServerHandle] = []
        self._phases: list[dict[str, float]] = []
        self._unfit: set[str] = set()
        self._last_failure = ""
        self._places = 0
        if server is not None:
            self._places = server_count(server, gpus)
            self._fill(self._places)

    @property
    def exists(self) -> bool:
        """True if the job has servers."""
        return self._server is not None

    @property
    def cores(self) -> int:
        """Cores that the servers take."""
        return min(len(self._handles), self._places) if self._server is not None and self._server.gpus else 0

    @property
    def gpus(self) -> int:
        """GPUs that the servers take."""
        return self.cores // max(1, servers_per_gpu(self._server)) if self._server is not None else 0

    def least_busy(self) -> ServerHandle | None:
        """Server with the fewest workers; None if none is ready to have some."""
        usable = [handle for handle in self._handles if self._alone or handle.starting is None]
        return min(usable, key=lambda handle: handle.workers, default=None)

    def wait(self) -> None:
        """Wait until a server is ready; until all are if nothing else runs in this Ray."""
        last_note = time.monotonic()
        while any(handle.starting for handle in self._handles):
            self._look(POLL_SECONDS)
            if not self._alone and any(handle.starting is None for handle in self._handles):
                return
            if time.monotonic() - last_note > WAITING_NOTE_SECONDS:
                self._on_note("No GPU is ready yet; other programs may use them, or their machine is gone.")
                last_note = time.monotonic()

    def update(self, nodes: Nodes, units: int) -> list[ServerHandle]:
        """Follow the cluster: give up servers of machines that are gone, and start servers on new GPUs.

        Args:
            nodes: the machines.
            units: that are left.

        Returns:
            Servers that are gone; `kill` them after their workers, whose calls have no answer.
        """
        if self._server is None:
            return []
        self._look(0.0)
        gone = self._remove(lambda handle: handle.node is not None and handle.node not in nodes)
        if self._server.gpus:
            available = int(nodes.total("GPU"))
            spare = min(max(1, available), MOST_SPARE_GPUS) if self._grows else 0
            per_gpu = servers_per_gpu(self._server)
            limit = available + spare if self._gpus is None else self._gpus
            self._places = min(available, limit) * per_gpu
            # Ones without a place wait for a machine, and show an autoscaler that it is needed.
            self._fill(max(1, min(limit, available + spare) * per_gpu if units > self._places else self._places))
        else:
            self._fill(1)
        return gone

    def avoid(self, node: str) -> list[ServerHandle]:
        """Give up the servers of a machine, and start no more there; return them as `update` does."""
        self._unfit.add(node)
        return self._remove(lambda handle: handle.node == node)

    def measure(self) -> float | None:
        """Return the share of the time in which GPUs or servers were busy; None if a server does not answer."""
        import ray
        from ray.exceptions import RayError

        calls: dict[Any, ServerHandle] = {h.actor.use.remote(): h for h in self._handles if h.starting is None}
        if not calls:
            return None
        answered, _ = ray.wait(list(calls), num_returns=len(calls), timeout=ANSWER_SECONDS)
        uses: list[ServerUse] = []
        for reference in answered:
            try:
                uses.append(ray.get(reference))
            except RayError:
                continue  # it has died, and Ray starts it again
            calls[reference].node, calls[reference].answered = uses[-1].node, time.monotonic()
        if len(uses) < len(calls):
            self._tell_silence()
            return None
        ready = max(sum(use.ready for use in uses), 1e-9)
        self._timer.server_busy = min(1.0, sum(use.busy for use in uses) / ready)
        measured = [use.gpu for use in uses if use.gpu is not None]
        self._timer.gpu_busy = min(1.0, sum(measured) / ready) if len(measured) == len(uses) else None
        return self._timer.server_busy if self._timer.gpu_busy is None else self._timer.gpu_busy

    def stop(self) -> None:
        """Kill all servers."""
        for handle in self._handles:
            kill(handle)

    def _remove(self, is_gone: Callable[[ServerHandle], bool]) -> list[ServerHandle]:
        gone = [handle for handle in self._handles if is_gone(handle)]
        self._handles = [handle for handle in self._handles if handle not in gone]
        return gone

    def _fill(self, count: int) -> None:
        assert self._server is not None, "a job without servers starts none"
        for _ in range(count - len(self._handles)):
            actor = start_server(self._server, self._facts, self._unfit)
            self._handles.append(ServerHandle(actor, actor.start.remote()))

    def _look(self, seconds: float) -> None:
        """Wait so long at most for servers that are starting, and note the ones that are ready."""
        import ray

        starting: dict[Any, ServerHandle] = {h.starting: h for h in self._handles if h.starting is not None}
        if not starting:
            return
        ended, _ = ray.wait(list(starting), num_returns=len(starting), timeout=seconds)
        for reference in ended:
            handle = starting[reference]
            try:
                answer: ServerStart | Unfit = answer_of(reference)
            except Exception as error:
                self._give_up(handle, error)
                continue
            if isinstance(answer, Unfit):
                self._unfit.add(answer.node)
                self._give_up(handle, answer.error)
                continue
            handle.starting, handle.node, handle.answered = None, answer.node, time.monotonic()
            self._phases.append(answer.phases)
        if ended:
            self._timer.servers_ready(self._phases, time.monotonic() - self._begun)

    def _give_up(self, handle: ServerHandle, error: Exception) -> None:
        """Remove a server that could not start; raise `error` if no other one is ready or may be."""
        kill(handle)
        self._handles.remove(handle)
        if self._alone or not self._handles:
            raise error from None
        note = f"An encoder could not start: {describe(error)}."
        if note != self._last_failure:
            self._last_failure = note
            self._on_note(note)

    def _tell_silence(self) -> None:
        now = time.monotonic()
        silent = [h for h in self._handles if h.starting is None and now - h.answered > SILENT_SECONDS]
        if silent and now - self._told_silence > SILENT_SECONDS:
            self._told_silence = now
            self._on_note(
                f"{counted(len(silent), 'encoder')} did not answer for a minute: Ray may be waiting for a free GPU to"
                " start it again."
            )


def kill(handle: ServerHandle) -> None:
    """Kill a server; Ray may be starting it again elsewhere."""
    import ray

    ray.kill(handle.actor)


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
