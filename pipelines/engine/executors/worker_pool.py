"""Pool of Ray actors: when one dies, hangs or fails, another one takes its unit."""

from __future__ import annotations

import gc
import itertools
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from codectok.errors import CodectokError
from codectok.phases import PhaseClock
from codectok.pipelines.engine.crashes import run_despite_crashes, without_crashing_sources
from codectok.pipelines.engine.faults import ATTEMPTS, FailedUnit, LastingUnitError, describe, stops_the_job
from codectok.pipelines.engine.job import Job, RunUnit, WorkerContext
from codectok.pipelines.engine.output.folder import MadeUnit, OutputFolder, run_attempt
from codectok.pipelines.engine.planning.plan import Plan
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.progress import ProgressCallback
from codectok.pipelines.engine.timing import RunTimer

from .local import Outcome
from .ray_cluster import current_umask
from .servers import Actor, ServerGroup, call_of

# Deaths of actors say little about a file, since nodes get lost; but a unit is not tried forever.
DEATHS = 10
DEATHS_BEFORE_CARE = 2
POLL_SECONDS = 1.0
BUSY_REPORT_SECONDS = 10.0
WAITING_NOTE_SECONDS = 30.0


@dataclass(frozen=True)
class _Started:
    """Start of a worker: its seconds by phase, and the name of its machine."""

    phases: Mapping[str, float]
    node: str


class _Worker:
    """Runs units in an actor's process."""

    def __init__(self, job: Job, context: WorkerContext, server: Actor | None, umask: int) -> None:
        os.umask(umask)
        call = None if server is None else call_of(server)
        self._job, self._server = job, server
        self._context = replace(context, server=call, clock=PhaseClock("start"))

    def start(self) -> _Started:
        """Load the job. Ray would hide a failure in the constructor."""
        _ = self._run_unit
        gc.freeze()  # modules and the loaded job stay: garbage collection need not look at them again
        return _Started(self._context.clock.seconds(), socket.gethostname())

    def run(self, unit: Unit, attempt: str, with_care: bool) -> MadeUnit:
        storage = self._context.output
        if with_care and self._server is None:
            return run_despite_crashes(self._job, self._context, unit, attempt)
        if with_care:
            unit = without_crashing_sources(self._job, storage, unit, attempt)
        return run_attempt(self._run_unit, unit, storage, attempt)

    @cached_property
    def _run_unit(self) -> RunUnit:
        torch.set_num_threads(self._job.threads)
        return self._job.start(self._context)


@dataclass
class _Task:
    """A unit that waits or runs, and the number of its attempts by outcome."""

    unit: int
    attempts: int = 0
    errors: int = 0
    timeouts: int = 0
    deaths: int = 0

    @property
    def with_care(self) -> bool:
        """True if the unit runs in a child process, since it may kill workers."""
        return self.deaths >= DEATHS_BEFORE_CARE


@dataclass(frozen=True)
class _Call:
    """A running call of an actor: of `start` (`task` is None) or of `run`."""

    actor: Actor
    task: _Task | None
    deadline: float


class WorkerPool:
    """The actors of one run.

    Args:
        job: sent to every actor.
        context: sent to every actor; the pool adds the server.
        folder: output folder.
        deadline_seconds: time limit of an attempt at a unit.
        progress: receives notes.
        servers: servers of the job; workers are spread over them.
        check_ray: raises an error if Ray itself has died.
        timer: receives the times of workers.
    """

    def __init__(
        self,
        job: Job,
        context: WorkerContext,
        folder: OutputFolder,
        deadline_seconds: float,
        progress: ProgressCallback,
        servers: ServerGroup,
        check_ray: Callable[[], None],
        timer: RunTimer,
    ) -> None:
        import ray

        self._job, self._context, self._folder, self._progress = job, context, folder, progress
        self._deadline_seconds, self._check_ray = deadline_seconds, check_ray
        self._servers, self._timer = servers, timer
        self._next_server = itertools.cycle(zip(servers.actors, servers.nodes(), strict=True))
        self._last_busy_report = time.monotonic()
        self._actor_class: Any = ray.remote(num_cpus=job.threads)(_Worker)
        self._umask = current_umask()
        self._calls: dict[Any, _Call] = {}
        self._idle: deque[Actor] = deque()
        self._nodes: dict[Actor, str] = {}
        self._waiting: deque[_Task] = deque()
        self._any_started, self._failed_starts = False, 0

    def start(self, workers: int) -> None:
        """Start workers, and do not wait for them."""
        for _ in range(workers):
            self._start_actor()

    def run(self, plan: Plan, units: Sequence[int]) -> Generator[Outcome, None, None]:
        """Run all units, and yield each when it is finished or has failed its last attempt."""
        import ray

        self._waiting.extend(_Task(unit) for unit in units)
        last_sign = time.monotonic()
        while self._waiting or any(call.task for call in self._calls.values()):
            while self._idle and self._waiting:
                self._start_task(self._idle.popleft(), self._waiting.popleft(), plan)
            ready, _ = ray.wait(list(self._calls), timeout=POLL_SECONDS)
            for reference in ready:
                last_sign = time.monotonic()
                outcome = self._finish(reference, self._calls.pop(reference))
                if outcome is not None:
                    yield outcome
            self._check_ray()
            yield from self._replace_hanging_actors()
            self._report_busy_share()
            all_pending = not self._idle and not any(call.task for call in self._calls.values())
            if all_pending and time.monotonic() - last_sign > WAITING_NOTE_SECONDS:
                self._progress.note("No worker could start yet: the Ray cluster has no free CPU (or GPU).")
                last_sign = time.monotonic()
        self._servers.measure()

    def stop(self) -> None:
        """Kill all actors."""
        for actor in [*self._idle, *(call.actor for call in self._calls.values())]:
            self._kill(actor)

    def _kill(self, actor: Actor) -> None:
        import ray

        ray.kill(actor)
        self._nodes.pop(actor, None)
        self._timer.end_worker(actor)

    def _start_actor(self) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        server, node = next(self._next_server, (None, None))
        place: dict[str, Any] = {}
        if node is not None:
            # Beside its server, so that their data stays on the machine.
            place["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
        actor_class = self._actor_class.options(**place)
        actor: Actor = actor_class.remote(self._job, self._context, server, self._umask)
        self._timer.begin_worker(actor)
        # An actor that waits for a free place holds no unit: it gets its first one when it is ready.
        self._calls[actor.start.remote()] = _Call(actor, None, float("inf"))

    def _report_busy_share(self) -> None:
        now = time.monotonic()
        if now - self._last_busy_report > BUSY_REPORT_SECONDS:
            self._last_busy_report = now
            share = self._servers.measure()
            if share is not None:
                self._progress.busy(share)

    def _replace_failed_start(self, actor: Actor, error: Exception, hopeless: bool) -> None:
        """Start another actor: one machine may be out of order, but not all of them."""
        self._kill(actor)
        self._failed_starts += 1
        if hopeless or self._failed_starts == DEATHS:
            raise error from None
        self._progress.note(f"A worker could not start: {describe(error)}.")
        self._start_actor()

    def _start_task(self, actor: Actor, task: _Task, plan: Plan) -> None:
        task.attempts += 1
        self._timer.begin_unit(task.unit, self._nodes[actor])
        attempt = self._folder.attempt(task.unit, task.attempts)
        reference: Any = actor.run.remote(plan.unit(task.unit), attempt, task.with_care)
        self._calls[reference] = _Call(actor, task, time.monotonic() + self._deadline_seconds)

    def _finish(self, reference: Any, call: _Call) -> Outcome | None:
        """Outcome of a call; None if the call was a start, or if its unit will be tried again."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        task = call.task
        try:
            answer: MadeUnit | _Started = ray.get(reference)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if task is None:
                self._replace_failed_start(call.actor, cause, hopeless=not self._any_started)
                return None
            if stops_the_job(cause):
                raise cause from None
            self._idle.append(call.actor)
            task.errors += 1
            lasting = isinstance(cause, LastingUnitError)
            failed = self._try_again(task, describe(cause), task.errors < ATTEMPTS and not lasting, str(error))
            return failed and replace(failed, lasting=lasting)
        except RayError as error:
            # The actor is gone: it crashed, was killed, ran out of memory or lost its machine.
            self._check_ray()
            if task is None:
                death = CodectokError(f"Workers die while they start: {describe(error)}.")
                self._replace_failed_start(call.actor, death, hopeless=False)
                return None
            self._kill(call.actor)
            self._start_actor()
            task.deaths += 1
            reason = f"its worker died {task.deaths} times ({describe(error)})"
            return self._try_again(task, reason, task.deaths < DEATHS)
        self._idle.append(call.actor)
        self._any_started, self._failed_starts = True, 0
        if isinstance(answer, MadeUnit):
            assert task is not None, "a start makes no unit"
            return answer, self._folder.attempt(task.unit, task.attempts)
        self._nodes[call.actor] = answer.node
        self._timer.worker_ready(call.actor, answer.phases)
        return None

    def _replace_hanging_actors(self) -> Generator[Outcome, None, None]:
        now = time.monotonic()
        for reference, call in list(self._calls.items()):
            if call.task is not None and now > call.deadline:
                del self._calls[reference]
                self._kill(call.actor)
                self._start_actor()
                call.task.timeouts += 1
                reason = f"it took longer than {self._deadline_seconds / 3600:g} h, {ATTEMPTS} times"
                outcome = self._try_again(call.task, reason, call.task.timeouts < ATTEMPTS)
                if outcome is not None:
                    yield outcome

    def _try_again(self, task: _Task, failure: str, another_attempt: bool, details: str = "") -> FailedUnit | None:
        self._timer.end_unit(task.unit)
        self._folder.storage.remove(self._folder.attempt(task.unit, task.attempts))
        if not another_attempt:
            return FailedUnit(task.unit, failure, details)
        self._progress.note(f"Unit {task.unit} is tried again: {failure}.")
        # After the others: a fault of the machine may have passed by then.
        self._waiting.append(task)
        return None
