"""Pool of Ray actors: when one dies, hangs or fails, another one takes its unit; it grows with the cluster."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from codectok.errors import CodectokError, PassingError
from codectok.pipelines.engine.faults import ATTEMPTS, FailedUnit, LastingUnitError, describe, stops_the_job
from codectok.pipelines.engine.job import Job, WorkerContext
from codectok.pipelines.engine.output.folder import MadeUnit, OutputFolder
from codectok.pipelines.engine.planning.plan import Plan
from codectok.pipelines.engine.progress import ProgressCallback
from codectok.pipelines.engine.scheduling.scheduler import DEATHS, Attempt, Fault, Next, Scheduler
from codectok.pipelines.engine.timing import RunTimer

from .local import Outcome
from .placement import Placement, alive_nodes, describe_cluster
from .ray_cluster import cluster_resource, current_umask
from .server_actor import Actor
from .servers import Seat, ServerGroup, kill
from .worker import Started, Worker

POLL_SECONDS = 1.0
# Time between two looks at the machines of the cluster.
STAFF_SECONDS = 10.0
BUSY_REPORT_SECONDS = 10.0
WAITING_NOTE_SECONDS = 30.0
DEATH_SECONDS = 5.0


@dataclass(eq=False)
class _Member:
    """A worker of the pool; `node` and `host` name its machine once it is ready."""

    actor: Actor
    seat: Seat | None
    node: str = ""
    host: str = ""


@dataclass(frozen=True)
class _Call:
    """A running call of a worker: of `start` (`attempt` is None) or of `run`."""

    member: _Member
    attempt: Attempt | None


class WorkerPool:
    """The actors of one run.

    Args:
        job: sent to every actor.
        context: sent to every actor; the pool adds the server.
        folder: output folder.
        plan: holds the units.
        scheduler: chooses the units.
        placement: decides how many actors there are.
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
        plan: Plan,
        scheduler: Scheduler,
        placement: Placement,
        progress: ProgressCallback,
        servers: ServerGroup,
        check_ray: Callable[[], None],
        timer: RunTimer,
    ) -> None:
        import ray

        self._job, self._context, self._folder, self._plan = job, context, folder, plan
        self._scheduler, self._placement, self._progress = scheduler, placement, progress
        self._servers, self._check_ray, self._timer = servers, check_ray, timer
        self._actor_class: Any = ray.remote(num_cpus=job.threads)(Worker)
        self._umask = current_umask()
        self._members: dict[_Member, None] = {}
        self._idle: deque[_Member] = deque()
        self._calls: dict[Any, _Call] = {}
        self._any_started, self._failed_starts = False, 0
        self._copies = self._faster_copies = 0
        self._staffed = self._last_busy_report = self._last_sign = time.monotonic()

    def run(self) -> Generator[Outcome, None, None]:
        """Run all units, and yield each when it is finished or has failed its last attempt."""
        self.staff()
        while not self._scheduler.finished:
            if time.monotonic() - self._staffed > STAFF_SECONDS:
                self.staff()
            self._give_work()
            for reference in self._ended_calls():
                self._last_sign = time.monotonic()
                outcome = self._finish(reference, self._calls.pop(reference))
                if outcome is not None:
                    yield outcome
            self._check_ray()
            yield from self._replace_hanging_workers()
            self._report_busy_share()
            self._tell_what_it_waits_for()
        self._servers.measure()
        if self._copies:
            self._progress.note(
                f"{self._copies:,} slow units ran a second time on another machine, and {self._faster_copies:,} of them"
                " were faster there."
            )

    def staff(self) -> None:
        """Start or end workers, so that they fit the cluster and the units that are left; does not wait for them."""
        self._staffed = time.monotonic()
        for seat in self._servers.update(alive_nodes()):
            self._lose([member for member in self._members if member.seat is seat])
            kill(seat)
        units = self._scheduler.waiting + self._scheduler.running
        wanted = self._placement.workers(int(cluster_resource("CPU")) - self._servers.cores, units)
        for _ in range(wanted - len(self._members)):
            if not self._start_worker():
                break
        pending = [call.member for call in self._calls.values() if call.attempt is None]
        for member in pending[: max(0, len(self._members) - max(wanted, 1))]:
            self._kill(member)

    def stop(self) -> None:
        """Kill all workers, and wait for a moment until they are dead, so that they write no more."""
        import ray

        references = [reference for reference, call in self._calls.items() if call.attempt is not None]
        for member in list(self._members):
            self._kill(member)
        with suppress(PassingError):
            self._check_ray()
            if references:
                ray.wait(references, num_returns=len(references), timeout=DEATH_SECONDS)

    def _kill(self, member: _Member) -> None:
        import ray

        ray.kill(member.actor)
        self._forget(member)

    def _forget(self, member: _Member) -> None:
        del self._members[member]
        if member in self._idle:
            self._idle.remove(member)
        for reference in [reference for reference, call in self._calls.items() if call.member is member]:
            del self._calls[reference]
        if member.seat is not None:
            member.seat.workers -= 1
        self._timer.end_worker(member)

    def _start_worker(self) -> bool:
        """Start a worker, beside its server so that their data stays on the machine; False if no server is ready."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        seat = self._servers.seat()
        if self._servers.exists and seat is None:
            return False
        place: dict[str, Any] = {}
        if seat is not None:
            seat.workers += 1
            if seat.node is not None:
                place["scheduling_strategy"] = NodeAffinitySchedulingStrategy(seat.node, soft=True)
        actor_class = self._actor_class.options(**place)
        server = None if seat is None else seat.actor
        member = _Member(actor_class.remote(self._job, self._context, server, self._umask), seat)
        self._members[member] = None
        self._timer.begin_worker(member)
        # An actor that waits for a free place holds no unit: it gets its first one when it is ready.
        self._calls[member.actor.start.remote()] = _Call(member, None)
        return True

    def _give_work(self) -> None:
        for _ in range(len(self._idle)):
            member = self._idle.popleft()
            attempt = self._scheduler.begin(member.node, time.monotonic())
            if attempt is None:
                self._idle.append(member)
                continue
            if attempt.is_copy:
                self._copies += 1
            else:
                self._timer.begin_unit(attempt.unit, member.host)
            unit = self._plan.unit(attempt.unit)
            reference: Any = member.actor.run.remote(unit, self._place_of(attempt), attempt.with_care)
            self._calls[reference] = _Call(member, attempt)

    def _ended_calls(self) -> list[Any]:
        """References of calls that have ended; waits for a moment for the first."""
        import ray

        if not self._calls:
            time.sleep(POLL_SECONDS)
            return []
        ended, others = ray.wait(list(self._calls), timeout=POLL_SECONDS)
        if ended and others:
            ended += ray.wait(others, num_returns=len(others), timeout=0)[0]
        return ended

    def _finish(self, reference: Any, call: _Call) -> Outcome | None:
        """Outcome of a call; None if the call was a start, or if its unit is made by another one."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        member, attempt = call.member, call.attempt
        try:
            answer: MadeUnit | Started = ray.get(reference)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if attempt is None:
                self._replace_failed_start(member, cause, hopeless=not self._any_started)
                return None
            if stops_the_job(cause):
                raise cause from None
            self._idle.append(member)
            lasting = isinstance(cause, LastingUnitError)
            fault = Fault.LASTING_ERROR if lasting else Fault.ERROR
            return self._failed(attempt, fault, describe(cause), str(error))
        except RayError as error:
            # The actor is gone: it crashed, was killed, ran out of memory or lost its machine.
            self._check_ray()
            if attempt is None:
                death = CodectokError(f"Workers die while they start: {describe(error)}.")
                self._replace_failed_start(member, death, hopeless=False)
                return None
            self._kill(member)
            self.staff()
            if member.node not in alive_nodes():
                return self._failed(attempt, Fault.LOSS, f"its machine {member.host} is gone")
            deaths = attempt.task.faults[Fault.DEATH] + 1
            return self._failed(attempt, Fault.DEATH, f"its worker died {deaths} times ({describe(error)})")
        self._idle.append(member)
        self._any_started, self._failed_starts = True, 0
        if isinstance(answer, MadeUnit):
            assert attempt is not None, "a start makes no unit"
            return self._made(answer, attempt)
        member.node, member.host = answer.node, answer.host
        self._timer.worker_ready(member, answer.phases)
        return None

    def _made(self, made: MadeUnit, attempt: Attempt) -> Outcome | None:
        place = self._place_of(attempt)
        if not self._scheduler.succeed(attempt, time.monotonic()):
            self._folder.storage.remove(place)
            return None
        self._faster_copies += attempt.is_copy
        return made, place

    def _failed(self, attempt: Attempt, fault: Fault, failure: str, details: str = "") -> FailedUnit | None:
        self._folder.storage.remove(self._place_of(attempt))
        after = self._scheduler.fail(attempt, fault)
        if after is Next.GIVE_UP:
            return FailedUnit(attempt.unit, failure, details, lasting=fault is Fault.LASTING_ERROR)
        if after is Next.TRY_AGAIN:
            self._timer.end_unit(attempt.unit)
            self._progress.note(f"Unit {attempt.unit} is tried again: {failure}.")
        return None

    def _place_of(self, attempt: Attempt) -> str:
        return self._folder.attempt(attempt.unit, attempt.number)

    def _lose(self, members: Collection[_Member]) -> None:
        """End workers whose server is gone; their units are tried again."""
        for member in members:
            attempts = [call.attempt for call in self._calls.values() if call.member is member]
            self._kill(member)
            for attempt in attempts:
                if attempt is not None:
                    self._failed(attempt, Fault.LOSS, "the machine of its server is gone")

    def _replace_failed_start(self, member: _Member, error: Exception, hopeless: bool) -> None:
        """Start another worker: one machine may be out of order, but not all of them."""
        self._kill(member)
        self._failed_starts += 1
        nobody_works = not self._idle and not any(call.attempt for call in self._calls.values())
        if hopeless or (self._failed_starts >= DEATHS and nobody_works):
            raise error from None
        self._progress.note(f"A worker could not start: {describe(error)}.")
        if self._failed_starts < DEATHS:
            self.staff()

    def _replace_hanging_workers(self) -> Generator[Outcome, None, None]:
        overdue = self._scheduler.overdue(time.monotonic())
        for member, attempt in [(c.member, c.attempt) for c in self._calls.values() if c.attempt in overdue]:
            assert attempt is not None, "a start has no time limit"
            self._kill(member)
            hours = self._scheduler.deadline_seconds / 3600
            outcome = self._failed(attempt, Fault.TIMEOUT, f"it took longer than {hours:g} h, {ATTEMPTS} times")
            if outcome is not None:
                yield outcome
        if overdue:
            self.staff()

    def _report_busy_share(self) -> None:
        now = time.monotonic()
        if now - self._last_busy_report > BUSY_REPORT_SECONDS:
            self._last_busy_report = now
            share = self._servers.measure()
            if share is not None:
                self._progress.busy(share)

    def _tell_what_it_waits_for(self) -> None:
        now = time.monotonic()
        works = self._idle or any(call.attempt for call in self._calls.values())
        if works or now - self._last_sign < WAITING_NOTE_SECONDS:
            return
        self._last_sign = now
        needs = f"{self._job.threads} free CPU{'s' if self._job.threads > 1 else ''}"
        needs += " beside a GPU" if self._servers.cores else ""
        self._progress.note(
            f"No worker runs: {self._scheduler.waiting:,} units wait for a machine with {needs}; the Ray cluster has"
            f" {describe_cluster()}."
        )
