"""Server of a job in a Ray actor, and the calls of its workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from codectok.errors import CodectokError
from codectok.pipelines.engine.job import Server, ServerCall

if TYPE_CHECKING:
    from ray.actor import ActorHandle

Actor: TypeAlias = "ActorHandle[Any]"

# One call is being answered, the next is ready, and others are on their way.
CALLS_AT_ONCE = 4
# A server that dies is started again, and its open calls are repeated: answers depend on the arguments only.
RESTARTS = 10


@dataclass(frozen=True)
class ServerUse:
    """Seconds since a server was ready, with calls, and in which its GPU computed (None if not measured)."""

    ready: float
    busy: float
    gpu: float | None


@dataclass(frozen=True)
class ServerStart:
    """Start of a server: its seconds by phase, and the identity that Ray gave its machine."""

    phases: dict[str, float]
    node: str


class ServerActor:
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

    def start(self) -> ServerStart:
        """Load the server."""
        import ray

        self._started()
        return ServerStart(self._server.clock.seconds(), ray.get_runtime_context().get_node_id())

    def call(self, *arguments: Any) -> Any:
        """Answer a call."""
        answer = self._started()
        self._count(1)
        try:
            return answer(*arguments)
        finally:
            self._count(-1)

    def use(self) -> ServerUse:
        """Tell how long the server was busy so far."""
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


def start_server(server: Server) -> Actor:
    """Ask Ray for an actor that holds `server`; it starts once a GPU is free."""
    import ray

    actor_class: Any = ray.remote(ServerActor)
    options = {"num_gpus": server.gpus, "num_cpus": 1 if server.gpus else 0, "max_concurrency": CALLS_AT_ONCE}
    actor: Actor = actor_class.options(max_restarts=RESTARTS, max_task_retries=RESTARTS, **options).remote(server)
    return actor


def call_of(server: Actor) -> ServerCall:
    """The function with which a worker calls `server`."""

    def call(*arguments: Any) -> Callable[[], Any]:
        reference: Any = server.call.remote(*arguments)
        return lambda: answer_of(reference)

    return call


def answer_of(reference: Any) -> Any:
    """Wait for the answer of a server.

    Raises:
        CodectokError: it has died too often.
    """
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    try:
        return ray.get(reference)
    except RayActorError:
        raise CodectokError(
            f"An encoder died more than {RESTARTS} times, perhaps for lack of memory; lower --workers or --pack-frames"
            " (for another table), and run the same command again to continue."
        ) from None
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
