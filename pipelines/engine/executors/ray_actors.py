"""Runs units on Ray actors, and gives those of an actor that dies, hangs or fails to another."""

from __future__ import annotations

import copy
import itertools
import time
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from codectok.errors import CodectokError, InputError
from codectok.pipelines.engine.faults import (
    ATTEMPTS,
    FailedUnit,
    LastingUnitError,
    describe,
    run_despite_crashes,
    stops_the_job,
    without_crashing_sources,
)
from codectok.pipelines.engine.job import Job, UnitRecord
from codectok.pipelines.engine.output import OutputFolder, run_attempt
from codectok.pipelines.engine.plan import Plan, Unit
from codectok.pipelines.engine.progress import Listener
from codectok.storage import Storage

from .local import Outcome
from .ray_cluster import start_ray
from .servers import RunningServer, busy_share, call_of, start_servers

if TYPE_CHECKING:
    from ray.actor import ActorHandle

# Deaths of actors say nothing of a file: nodes get lost. But a unit that loses so many is not tried for ever.
DEATHS = 10
DEATHS_BEFORE_CARE = 2
POLL_SECONDS = 1.0
BUSY_REPORT_SECONDS = 10.0
WAITING_NOTE_SECONDS = 30.0


@dataclass(frozen=True)
class ClusterOptions:
    """Which Ray, and what of it.

    Attributes:
        workers: actors; all cores of the cluster by default.
        address: of a cluster to join; without one, `RAY_ADDRESS` or a Ray of this machine's own.
        gpus: to use if the job has a server; all of the cluster by default.
        deadline_seconds: after which an actor counts as hanging and its unit is tried on another.
    """

    workers: int | None
    address: str | None
    gpus: int | None
    deadline_seconds: float


def run_on_ray(
    job: Job,
    plan: Plan,
    units: Sequence[int],
    folder: OutputFolder,
    options: ClusterOptions,
    listener: Listener,
) -> Generator[Outcome, None, None]:
    """Run `units` on actors; they come back in the order in which they are finished, each with its attempt's folder."""
    import ray

    server = job.server()
    started_here = not ray.is_initialized()
    if started_here:
        # Every GPU takes a core of its own.
        taken = (options.gpus or torch.cuda.device_count()) if server and server.gpus else 0
        start_ray(options.address, options.workers and options.workers * job.threads + taken)
    servers: list[RunningServer] = []
    try:
        servers = start_servers(server, options.gpus, listener.note) if server else []
        taken = len(servers) if server and server.gpus else 0
        crew = _Crew(job, folder, options, listener, servers)
        workers = min(_worker_count(options, job.threads, taken), len(units))
        listener.staffed(workers, job.threads, taken)
        try:
            yield from crew.run(plan, units, workers)
        finally:
            crew.dismiss()
    finally:
        for running in servers:
            ray.kill(running.actor)
        if started_here:
            ray.shutdown()


class _Worker:
    """Runs units in an actor's process."""

    def __init__(self, job: Job, storage: Storage, server: ActorHandle | None) -> None:
        self.job, self.storage, self.server = job, storage, server
        self.unconnected_job = copy.copy(job)
        if server is not None:
            job.connect(call_of(server))

    def set_up(self) -> None:
        # Not in the constructor: Ray would hide the reason of a failure there.
        torch.set_num_threads(self.job.threads)
        self.job.set_up()

    def run(self, unit: Unit, attempt: str, with_care: bool) -> UnitRecord:
        if with_care and self.server is None:
            return run_despite_crashes(self.job, unit, self.storage, attempt)
        if with_care:
            unit = without_crashing_sources(self.unconnected_job, unit, self.storage, attempt)
        return run_attempt(self.job, unit, self.storage, attempt)


@dataclass
class _Task:
    """A unit on its way."""

    unit: int
    attempts: int = 0
    errors: int = 0
    timeouts: int = 0
    deaths: int = 0

    @property
    def with_care(self) -> bool:
        """Whether to run it in a child process, which may crash."""
        return self.deaths >= DEATHS_BEFORE_CARE


@dataclass(frozen=True)
class _Call:
    """What an actor is doing: setting itself up, or a task."""

    actor: ActorHandle
    task: _Task | None
    deadline: float


class _Crew:
    """The actors of a job."""

    def __init__(
        self,
        job: Job,
        folder: OutputFolder,
        options: ClusterOptions,
        listener: Listener,
        servers: Sequence[RunningServer],
    ) -> None:
        import ray

        self._job, self._folder, self._options, self._listener = job, folder, options, listener
        self._on_note = listener.note
        self._servers = list(servers)
        self._next_server = itertools.cycle(servers)
        self._last_busy_report = time.monotonic()
        self._actor_class: Any = ray.remote(num_cpus=job.threads)(_Worker)
        self._calls: dict[Any, _Call] = {}
        self._idle: deque[ActorHandle] = deque()
        self._waiting: deque[_Task] = deque()
        self._started, self._failed_starts = False, 0

    def run(self, plan: Plan, units: Sequence[int], workers: int) -> Generator[Outcome, None, None]:
        """Run all units; yields what is finished or has failed for good."""
        import ray

        self._waiting.extend(_Task(unit) for unit in units)
        for _ in range(workers):
            self._hire()
        last_sign = time.monotonic()
        while self._waiting or any(call.task for call in self._calls.values()):
            while self._idle and self._waiting:
                self._start(self._idle.popleft(), self._waiting.popleft(), plan)
            ready, _ = ray.wait(list(self._calls), timeout=POLL_SECONDS)
            for reference in ready:
                last_sign = time.monotonic()
                outcome = self._finish(reference, self._calls.pop(reference))
                if outcome is not None:
                    yield outcome
            yield from self._give_up_on_hanging_actors()
            self._report_busy_share()
            nobody_works = not self._idle and not any(call.task for call in self._calls.values())
            if nobody_works and time.monotonic() - last_sign > WAITING_NOTE_SECONDS:
                self._on_note("No worker has a place yet: the Ray cluster has no free CPU (or GPU).")
                last_sign = time.monotonic()

    def dismiss(self) -> None:
        """End all actors."""
        import ray

        for actor in [*self._idle, *(call.actor for call in self._calls.values())]:
            ray.kill(actor)

    def _hire(self) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        server = next(self._next_server, None)
        place: dict[str, Any] = {}
        if server is not None:
            # Beside its server, so that what it sends stays on the machine.
            place["scheduling_strategy"] = NodeAffinitySchedulingStrategy(server.node, soft=True)
        actor = self._actor_class.options(**place).remote(
            self._job, self._folder.storage, None if server is None else server.actor
        )
        # An actor that finds no free place yet holds no unit: it gets its first one when it is ready.
        self._calls[actor.set_up.remote()] = _Call(actor, None, float("inf"))

    def _report_busy_share(self) -> None:
        now = time.monotonic()
        if self._servers and now - self._last_busy_report > BUSY_REPORT_SECONDS:
            self._last_busy_report = now
            share = busy_share(self._servers)
            if share is not None:
                self._listener.busy(share)

    def _replace_failed_start(self, actor: ActorHandle, error: Exception, hopeless: bool) -> None:
        """Try again elsewhere: one machine may be out of order, but not all of them."""
        import ray

        ray.kill(actor)
        self._failed_starts += 1
        if hopeless or self._failed_starts == DEATHS:
            raise error from None
        self._on_note(f"A worker could not start: {describe(error)}.")
        self._hire()

    def _start(self, actor: ActorHandle, task: _Task, plan: Plan) -> None:
        task.attempts += 1
        attempt = self._folder.attempt(task.unit, task.attempts)
        reference: Any = actor.run.remote(plan.unit(task.unit), attempt, task.with_care)
        self._calls[reference] = _Call(actor, task, time.monotonic() + self._options.deadline_seconds)

    def _finish(self, reference: Any, call: _Call) -> Outcome | None:
        """Take in what an actor has done; a task that did not succeed waits for another turn."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        task = call.task
        try:
            record = ray.get(reference)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if task is None:
                self._replace_failed_start(call.actor, cause, hopeless=not self._started)
                return None
            if stops_the_job(cause):
                raise cause from None
            self._idle.append(call.actor)
            task.errors += 1
            lasting = isinstance(cause, LastingUnitError)
            again = self._again(task, describe(cause), task.errors < ATTEMPTS and not lasting, str(error))
            return again and replace(again, lasting=lasting)
        except RayError as error:
            # The actor is gone: it crashed, was killed, for want of memory too, or has lost its machine.
            if task is None:
                death = CodectokError(f"Workers die while they are starting: {describe(error)}.")
                self._replace_failed_start(call.actor, death, hopeless=False)
                return None
            ray.kill(call.actor)
            self._hire()
            task.deaths += 1
            return self._again(task, f"its worker died {task.deaths} times ({describe(error)})", task.deaths < DEATHS)
        self._idle.append(call.actor)
        self._started, self._failed_starts = True, 0
        return None if task is None else (record, self._folder.attempt(task.unit, task.attempts))

    def _give_up_on_hanging_actors(self) -> Generator[Outcome, None, None]:
        import ray

        now = time.monotonic()
        for reference, call in list(self._calls.items()):
            if call.task is not None and now > call.deadline:
                del self._calls[reference]
                ray.kill(call.actor)
                self._hire()
                call.task.timeouts += 1
                hours = self._options.deadline_seconds / 3600
                outcome = self._again(
                    call.task, f"it took longer than {hours:g} h, {ATTEMPTS} times", call.task.timeouts < ATTEMPTS
                )
                if outcome is not None:
                    yield outcome

    def _again(self, task: _Task, failure: str, another_turn: bool, details: str = "") -> FailedUnit | None:
        self._folder.storage.remove(self._folder.attempt(task.unit, task.attempts))
        if not another_turn:
            return FailedUnit(task.unit, failure, details)
        self._on_note(f"Unit {task.unit} is tried again: {failure}.")
        # After the others: what was wrong with the machine may have passed by then.
        self._waiting.append(task)
        return None


def _worker_count(options: ClusterOptions, threads: int, taken: int) -> int:
    import ray

    resources = ray.cluster_resources()
    capacity = (int(resources.get("CPU", 0)) - taken) // threads
    if capacity < 1:
        raise InputError(f"The Ray cluster has no place for a worker, which needs a CPU for each of {threads} threads.")
    # An actor beyond that would wait for its place for ever.
    return min(options.workers or capacity, capacity)
