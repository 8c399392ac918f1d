"""Servers of a job in Ray actors: each serves several workers, such as the one that holds a GPU."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from codectok.errors import CodectokError, InputError
from codectok.pipelines.engine.job import Server, ServerCall
from codectok.pipelines.engine.timing import RunTimer

from .ray_cluster import cluster_resource

if TYPE_CHECKING:
    from ray.actor import ActorHandle

Actor: TypeAlias = "ActorHandle[Any]"

# One call is being answered, the next is ready, and others are on their way.
CALLS_AT_ONCE = 4
# A server that dies is started again, and its open calls are repeated: answers depend on the arguments only.
RESTARTS = 10
POLL_SECONDS = 1.0
ANSWER_SECONDS = 2.0
WAITING_NOTE_SECONDS = 30.0


class _ServerActor:
    """A server in an actor's process; measures how long it is busy."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._answer: Callable[..., Any] | None = None
        self._calls = 0
        self._busy_seconds = 0.0
        self._busy_since = 0.0
        self._ready_since = 0.0
        self._gpu_seconds = 0.0  # before it was ready

    def node(self) -> str:
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def start(self) -> dict[str, float]:
        """Load the server, and return the seconds of each phase."""
        self._started()
        return self._server.clock.seconds()

    def call(self, *arguments: Any) -> Any:
        answer = self._started()
        self._count(1)
        try:
            return answer(*arguments)
        finally:
            self._count(-1)

    def use(self) -> ServerUse:
        with self._lock:
            now = time.monotonic()
            busy = self._busy_seconds + (now - self._busy_since if self._calls else 0.0)
            gpu = self._server.gpu_seconds()
            return ServerUse(now - self._ready_since, busy, None if gpu is None else gpu - self._gpu_seconds)

    def _started(self) -> Callable[..., Any]:
        # Not in the constructor, where Ray would hide the reason of a failure; and again after a restart.
        with self._lock:
            if self._answer is None:
                _ = self._server.clock  # starts it
                self._answer = self._server.start()
                self._ready_since = time.monotonic()
                self._gpu_seconds = self._server.gpu_seconds() or 0.0
            return self._answer

    def _count(self, change: int) -> None:
        with self._lock:
            now = time.monotonic()
            if self._calls == 0:
                self._busy_since = now
            self._calls += change
            if self._calls == 0:
                self._busy_seconds += now - self._busy_since


@dataclass(frozen=True)
class ServerUse:
    """Seconds since a server was ready, with calls, and in which its GPU computed (None if not measured)."""

    ready: float
    busy: float
    gpu: float | None


class ServerGroup:
    """Servers on each of some GPUs, or one if it needs no GPU; empty if a job has none.

    Args:
        server: to start; None for none.
        gpus: number of GPUs; None for all.
        alone: the Ray runs nothing else, on this machine.
        on_note: receives notes.
        timer: receives the times of the servers.

    Attributes:
        actors: actors of the servers.

    Raises:
        InputError: the server needs a GPU, and the cluster has none.
    """

    def __init__(
        self, server: Server | None, gpus: int | None, alone: bool, on_note: Callable[[str], None], timer: RunTimer
    ) -> None:
        import ray

        self._alone, self._on_note, self._timer = alone, on_note, timer
        self._begun = time.monotonic()
        self.actors: list[Actor] = []
        self._starts: list[Any] = []
        if server is None:
            return
        actor_class: Any = ray.remote(_ServerActor)
        options = {"num_gpus": server.gpus, "num_cpus": 1 if server.gpus else 0, "max_concurrency": CALLS_AT_ONCE}
        for _ in range(server_count(server, gpus)):
            made = actor_class.options(max_restarts=RESTARTS, max_task_retries=RESTARTS, **options).remote(server)
            self.actors.append(made)
            self._starts.append(made.start.remote())

    def nodes(self) -> list[str | None]:
        """Node of each server; None if there is only one.

        Waits for the servers if other programs use the cluster: workers must not take their places.
        """
        if self._alone:
            return [None] * len(self.actors)
        self.wait()
        return _answers([actor.node.remote() for actor in self.actors])

    def wait(self) -> None:
        """Wait until all servers are ready."""
        import ray

        count, last_note = len(self._starts), time.monotonic()
        if not count:
            return
        while len(ray.wait(self._starts, num_returns=count, timeout=POLL_SECONDS)[0]) < count:
            if time.monotonic() - last_note > WAITING_NOTE_SECONDS:
                self._on_note("Not all GPUs are ready yet; other programs may use them.")
                last_note = time.monotonic()
        self._timer.servers_ready(_answers(self._starts), time.monotonic() - self._begun)
        self._starts = []

    def measure(self) -> float | None:
        """Return the share of the time in which GPUs or servers were busy; None if a server does not answer."""
        import ray
        from ray.exceptions import RayError

        if not self.actors:
            return None
        try:
            uses: list[ServerUse] = ray.get([actor.use.remote() for actor in self.actors], timeout=ANSWER_SECONDS)
        except RayError:
            return None
        ready = max(sum(use.ready for use in uses), 1e-9)
        self._timer.server_busy = min(1.0, sum(use.busy for use in uses) / ready)
        measured = [use.gpu for use in uses if use.gpu is not None]
        self._timer.gpu_busy = min(1.0, sum(measured) / ready) if len(measured) == len(uses) else None
        return self._timer.server_busy if self._timer.gpu_busy is None else self._timer.gpu_busy

    def stop(self) -> None:
        """Kill all servers."""
        import ray

        for actor in self.actors:
            ray.kill(actor)


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


def call_of(server: Actor) -> ServerCall:
    """The function with which a worker calls `server`."""

    def call(*arguments: Any) -> Callable[[], Any]:
        reference: Any = server.call.remote(*arguments)
        return lambda: _answers([reference])[0]

    return call


def _answers(references: list[Any]) -> list[Any]:
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    try:
        return ray.get(references)
    except RayActorError:
        raise CodectokError(
            f"An encoder died more than {RESTARTS} times, perhaps for lack of memory; lower --workers or --pack-frames"
            " (for another table), and run the same command again to continue."
        ) from None
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
