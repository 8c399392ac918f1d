"""Server of a job in a Ray actor, and the calls of its workers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from codectok.errors import CodectokError
from codectok.pipelines.engine.job import Server, ServerCall

from .node_facts import NodeFacts, difference, node_facts

if TYPE_CHECKING:
    from ray.actor import ActorHandle

Actor: TypeAlias = "ActorHandle[Any]"

# One call is being answered, the next is ready, and others are on their way.
CALLS_AT_ONCE = 4
# A server that dies is started again, and its open calls are repeated: answers depend on the arguments only.
RESTARTS = 10
# Label that Ray gives each machine.
NODE_LABEL = "ray.io/node-id"


@dataclass(frozen=True)
class ServerUse:
    """Use of a server so far.

    Attributes:
        ready: seconds since it was ready.
        busy: seconds with calls.
        gpu: seconds in which its GPU computed; None if not measured.
        node: identity of its machine, which is another one if it was started again elsewhere.
    """

    ready: float
    busy: float
    gpu: float | None
    node: str


@dataclass(frozen=True)
class ServerStart:
    """Start of a server: its seconds by phase, and the identity that Ray gave its machine."""

    phases: dict[str, float]
    node: str


@dataclass(frozen=True)
class Unfit:
    """An actor whose machine cannot work on the job: why, and its name and identity."""

    error: CodectokError
    host: str
    node: str


class ServerActor:
    """A server in an actor's process; measures how long it is busy.

    Args:
        server: the server.
        facts: that its machine must have; None on the driver's machine.
    """

    def __init__(self, server: Server, facts: NodeFacts | None) -> None:
        self._server, self._facts = server, facts
        self._lock = threading.Lock()
        self._answer: Callable[..., Any] | None = None
        self._calls = 0
        self._busy_seconds = 0.0
        self._busy_since = 0.0
        self._ready_since = 0.0
        self._gpu_seconds = 0.0  # before it was ready

    def start(self) -> ServerStart | Unfit:
        """Load the server."""
        host, node = socket.gethostname(), node_of_actor()
        try:
            refuse_machine(None if self._facts is None else difference(self._facts, node_facts()))
            self._started()
        except CodectokError as error:
            return Unfit(error, host, node)
        return ServerStart(self._server.clock.seconds(), node)

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
            measured = None if gpu is None else gpu - self._gpu_seconds
            return ServerUse(now - self._ready_since, busy, measured, node_of_actor())

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


def start_server(server: Server, facts: NodeFacts | None, unfit: Collection[str]) -> Actor:
    """Ask Ray for an actor that holds `server`, on no `unfit` machine; it starts once a GPU is free."""
    import ray

    actor_class: Any = ray.remote(ServerActor)
    options = {"num_gpus": server.gpus, "num_cpus": 1 if server.gpus else 0, "max_concurrency": CALLS_AT_ONCE}
    options |= {"max_restarts": RESTARTS, "max_task_retries": RESTARTS, **elsewhere(unfit)}
    actor: Actor = actor_class.options(**options).remote(server, facts)
    return actor


def elsewhere(nodes: Collection[str]) -> dict[str, Any]:
    """Options of an actor that must not run on some machines."""
    from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

    if not nodes:
        return {}
    not_in: Any = NotIn
    return {"scheduling_strategy": NodeLabelSchedulingStrategy(hard={NODE_LABEL: not_in(*sorted(nodes))})}


def node_of_actor() -> str:
    """Identity that Ray gave the machine of this process."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def refuse_machine(problem: str | None) -> None:
    """Raise a `CodectokError` if this machine has a problem."""
    if problem is not None:
        raise CodectokError(f"The machine {socket.gethostname()} cannot work on this job: {problem}.")


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
