"""Actors that serve several workers each, such as the one that has a GPU."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codectok.errors import CodectokError, InputError
from codectok.pipelines.engine.job import Server, ServerCall

if TYPE_CHECKING:
    from ray.actor import ActorHandle

# One call is being answered, the next is ready, and others are on their way.
CALLS_AT_ONCE = 4
# A server that dies is started anew, and asked again what it has not answered: its answers depend on nothing else.
RESTARTS = 10
POLL_SECONDS = 1.0
ANSWER_SECONDS = 2.0
WAITING_NOTE_SECONDS = 30.0


@dataclass(frozen=True)
class RunningServer:
    """A server that is ready: its actor, and the node on which it runs."""

    actor: ActorHandle
    node: str


class _ServerActor:
    """A server in an actor's process, which counts how long it has something to do."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._ready = False
        self._calls = 0
        self._busy_seconds = 0.0
        self._busy_since = 0.0
        self._ready_since = 0.0

    def set_up(self) -> str:
        import ray

        self._prepare()
        return ray.get_runtime_context().get_node_id()

    def call(self, *arguments: Any) -> Any:
        self._prepare()
        self._count(1)
        try:
            return self._server.call(*arguments)
        finally:
            self._count(-1)

    def busy_share(self) -> float:
        with self._lock:
            now = time.monotonic()
            busy = self._busy_seconds + (now - self._busy_since if self._calls else 0.0)
            return busy / max(now - self._ready_since, 1e-9)

    def _prepare(self) -> None:
        # Not in the constructor, where Ray would hide the reason of a failure; and again after a restart.
        with self._lock:
            if not self._ready:
                self._server.set_up()
                self._ready, self._ready_since = True, time.monotonic()

    def _count(self, change: int) -> None:
        with self._lock:
            now = time.monotonic()
            if self._calls == 0:
                self._busy_since = now
            self._calls += change
            if self._calls == 0:
                self._busy_seconds += now - self._busy_since


def start_servers(server: Server, gpus: int | None, on_note: Callable[[str], None]) -> list[RunningServer]:
    """Start as many as there are GPUs for, or `gpus`, and wait until they are ready; one if it needs none."""
    import ray

    count = 1
    if server.gpus:
        there = int(ray.cluster_resources().get("GPU", 0) / server.gpus)
        if there == 0:
            raise InputError("The Ray cluster has no GPU; run on machines that have one, or with --device cpu.")
        count = min(gpus or there, there)
    actor_class: Any = ray.remote(_ServerActor)
    options = {"num_gpus": server.gpus, "num_cpus": 1 if server.gpus else 0, "max_concurrency": CALLS_AT_ONCE}
    actors = [
        actor_class.options(max_restarts=RESTARTS, max_task_retries=RESTARTS, **options).remote(server)
        for _ in range(count)
    ]
    try:
        nodes = [actor.set_up.remote() for actor in actors]
        last_note = time.monotonic()
        while len(ray.wait(nodes, num_returns=count, timeout=POLL_SECONDS)[0]) < count:
            if time.monotonic() - last_note > WAITING_NOTE_SECONDS:
                on_note("Not all GPUs are ready yet: others may use them.")
                last_note = time.monotonic()
        return [RunningServer(actor, node) for actor, node in zip(actors, _answers(nodes), strict=True)]
    except BaseException:
        for actor in actors:
            ray.kill(actor)
        raise


def call_of(server: ActorHandle) -> ServerCall:
    """How a worker calls `server`."""

    def call(*arguments: Any) -> Callable[[], Any]:
        reference: Any = server.call.remote(*arguments)
        return lambda: _answers([reference])[0]

    return call


def busy_share(servers: list[RunningServer]) -> float | None:
    """The share of the time since their start that the servers had something to do; None while one is silent."""
    import ray
    from ray.exceptions import RayError

    references: list[Any] = [server.actor.busy_share.remote() for server in servers]
    try:
        shares = ray.get(references, timeout=ANSWER_SECONDS)
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
            f"An encoder died more than {RESTARTS} times, perhaps for lack of the machine's memory; lower --workers or"
            " --pack-frames (for a table of its own), and run the same command again to go on."
        ) from None
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
