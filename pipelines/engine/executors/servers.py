"""Servers of a job in Ray actors: each serves several workers, such as the one that holds a GPU."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from codectok.errors import CodectokError, InputError
from codectok.pipelines.engine.job import Server, ServerCall

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


@dataclass(frozen=True)
class RunningServer:
    """A server that is ready: its actor, and the node on which it runs."""

    actor: Actor
    node: str


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

    def start(self) -> str:
        """Load the server and return the id of its node."""
        import ray

        self._started()
        return str(ray.get_runtime_context().get_node_id())

    def call(self, *arguments: Any) -> Any:
        answer = self._started()
        self._count(1)
        try:
            return answer(*arguments)
        finally:
            self._count(-1)

    def busy_share(self) -> float:
        with self._lock:
            now = time.monotonic()
            busy = self._busy_seconds + (now - self._busy_since if self._calls else 0.0)
            return busy / max(now - self._ready_since, 1e-9)

    def _started(self) -> Callable[..., Any]:
        # Not in the constructor, where Ray would hide the reason of a failure; and again after a restart.
        with self._lock:
            if self._answer is None:
                self._answer, self._ready_since = self._server.start(), time.monotonic()
            return self._answer

    def _count(self, change: int) -> None:
        with self._lock:
            now = time.monotonic()
            if self._calls == 0:
                self._busy_since = now
            self._calls += change
            if self._calls == 0:
                self._busy_seconds += now - self._busy_since


def start_servers(server: Server, gpus: int | None, on_note: Callable[[str], None]) -> list[RunningServer]:
    """Start servers on each of `gpus` GPUs (None for all), or one if it needs no GPU; returns when all are ready.

    Raises:
        InputError: the server needs a GPU, and the cluster has none.
    """
    import ray

    count = server_count(server, gpus)
    actor_class: Any = ray.remote(_ServerActor)
    options = {"num_gpus": server.gpus, "num_cpus": 1 if server.gpus else 0, "max_concurrency": CALLS_AT_ONCE}
    actors = [
        actor_class.options(max_restarts=RESTARTS, max_task_retries=RESTARTS, **options).remote(server)
        for _ in range(count)
    ]
    try:
        nodes = [actor.start.remote() for actor in actors]
        last_note = time.monotonic()
        while len(ray.wait(nodes, num_returns=count, timeout=POLL_SECONDS)[0]) < count:
            if time.monotonic() - last_note > WAITING_NOTE_SECONDS:
                on_note("Not all GPUs are ready yet; other programs may use them.")
                last_note = time.monotonic()
        return [RunningServer(actor, node) for actor, node in zip(actors, _answers(nodes), strict=True)]
    except BaseException:
        for actor in actors:
            ray.kill(actor)
        raise


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


def busy_share(servers: list[RunningServer]) -> float | None:
    """Mean share of the time since their start in which the servers were busy; None if one does not answer."""
    import ray
    from ray.exceptions import RayError

    references: list[Any] = [server.actor.busy_share.remote() for server in servers]
    try:
        shares: list[float] = ray.get(references, timeout=ANSWER_SECONDS)
    except RayError:
        return None
    return sum(shares) / len(shares)


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
