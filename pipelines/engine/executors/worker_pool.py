"""Pool of Ray actors: when one dies, hangs or fails, another one takes its unit; it grows with the cluster."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

from codectok.errors import CodectokError
from codectok.pipelines.engine.faults import ATTEMPTS, FailedUnit, LastingUnitError, describe, stops_the_job
from codectok.pipelines.engine.output.folder import MadeUnit, OutputFolder
from codectok.pipelines.engine.planning.plan import Plan
from codectok.pipelines.engine.progress import ProgressCallback
from codectok.pipelines.engine.scheduling.scheduler import DEATHS, Attempt, Fault, Next, Scheduler
from codectok.pipelines.engine.timing import RunTimer

from .local import Outcome
from .placement import alive_nodes
from .servers import ServerGroup, kill
from .staff import Member, Staff
from .worker import Started, Unfit

POLL_SECONDS = 1.0
# Time between two looks at the machines of the cluster.
FIT_SECONDS = 10.0
BUSY_REPORT_SECONDS = 10.0
WAITING_NOTE_SECONDS = 30.0
DEATH_SECONDS = 5.0


@dataclass(frozen=True)
class _Call:
    """A running call of a worker: of `start` (`attempt` is None) or of `run`."""

    member: Member
    attempt: Attempt | None


class WorkerPool:
    """The actors of one run.

    Args:
        folder: output folder.
        plan: holds the units.
        scheduler: chooses the units.
        staff: the workers.
        servers: servers of the workers.
        progress: receives notes.
        check_ray: raises an error if Ray itself has died.
        timer: receives the times of units.
    """

    def __init__(
        self,
        folder: OutputFolder,
        plan: Plan,
        scheduler: Scheduler,
        staff: Staff,
        servers: ServerGroup,
        progress: ProgressCallback,
        check_ray: Callable[[], None],
        timer: RunTimer,
    ) -> None:
        self._folder, self._plan, self._scheduler = folder, plan, scheduler
        self._staff, self._servers, self._progress = staff, servers, progress
        self._check_ray, self._timer = check_ray, timer
        self._idle: deque[Member] = deque()
        self._calls: dict[Any, _Call] = {}
        self._given_up: list[FailedUnit] = []
        self._any_started, self._failed_starts, self._last_failed_start = False, 0, ""
        self._fitted = self._last_busy_report = self._last_sign = time.monotonic()

    def run(self) -> Generator[Outcome, None, None]:
        """Run all units, and yield each when it is finished or has failed its last attempt."""
        self.fit_staff()
        while not self._scheduler.finished:
            if time.monotonic() - self._fitted > FIT_SECONDS:
                self.fit_staff()
            self._give_work()
            for reference in self._ended_calls():
                self._last_sign = time.monotonic()
                # Workers that end take others with them, such as all of a lost server.
                call = self._calls.pop(reference, None)
                outcome = None if call is None else self._finish(reference, call)
                if outcome is not None:
                    yield outcome
            self._check_ray()
            self._replace_hanging_workers()
            yield from self._given_up
            self._given_up.clear()
            self._report_busy_share()
            self._tell_what_it_waits_for()
        self._servers.measure()

    def fit_staff(self) -> None:
        """Start or end workers, so that they fit the cluster and the units that are left; does not wait for them."""
        self._fitted = time.monotonic()
        for seat in self._servers.update(alive_nodes()):
            self._lose(self._staff.served_by(seat))
            kill(seat)
        wanted = self._staff.wanted(self._scheduler.waiting + self._scheduler.running)
        for _ in range(wanted - len(self._staff)):
            started = self._staff.start()
            if started is None:
                break
            member, reference = started
            # An actor that waits for a free place holds no unit: it gets its first one when it is ready.
            self._calls[reference] = _Call(member, None)
        pending = [call.member for call in self._calls.values() if call.attempt is None]
        for member in pending[: max(0, len(self._staff) - max(wanted, 1))]:
            self._kill(member)

    def stop(self) -> None:
        """Kill all workers, and wait for a moment until they are dead, so that they write no more."""
        import ray

        references = [reference for reference, call in self._calls.items() if call.attempt is not None]
        for member in self._staff.all():
            self._kill(member)
        if references:
            ray.wait(references, num_returns=len(references), timeout=DEATH_SECONDS)

    def _kill(self, member: Member, reason: str = "") -> None:
        self._staff.end(member, reason)
        if member in self._idle:
            self._idle.remove(member)
        for reference in [reference for reference, call in self._calls.items() if call.member is member]:
            del self._calls[reference]

    def _give_work(self) -> None:
        for _ in range(len(self._idle)):
            member = self._idle.popleft()
            attempt = self._scheduler.begin(member.node, time.monotonic())
            if attempt is None:
                self._idle.append(member)
                continue
            if attempt.is_copy:
                self._timer.units_run_twice += 1
            else:
                self._timer.begin_unit(attempt.unit, member.host, attempt.number)
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
        """Return the unit that a call has made; None if it was a start, has failed, or another one was faster."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        member, attempt = call.member, call.attempt
        try:
            answer: MadeUnit | Started | Unfit = ray.get(reference)
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
            self._fail(attempt, fault, describe(cause), str(error))
            return None
        except RayError as error:
            # The actor is gone: it crashed, was killed, ran out of memory or lost its machine.
            self._check_ray()
            if attempt is None:
                death = CodectokError(f"Workers die while they start: {describe(error)}.")
                self._replace_failed_start(member, death, hopeless=False)
                return None
            self._kill(member, describe(error))
            self.fit_staff()
            if member.node in alive_nodes():
                deaths = attempt.task.faults[Fault.DEATH] + 1
                self._fail(attempt, Fault.DEATH, f"its worker died {deaths} times ({describe(error)})")
            else:
                self._fail(attempt, Fault.LOSS, f"its machine {member.host} is gone")
            return None
        if isinstance(answer, Unfit):
            self._staff.avoid(answer.node)
            self._replace_failed_start(member, answer.error, hopeless=not self._any_started)
            return None
        self._idle.append(member)
        self._any_started, self._failed_starts = True, 0
        if isinstance(answer, MadeUnit):
            assert attempt is not None, "a start makes no unit"
            return self._made(answer, attempt)
        member.node, member.host = answer.node, answer.host
        self._timer.worker_ready(member, answer.phases, answer.host)
        return None

    def _made(self, made: MadeUnit, attempt: Attempt) -> Outcome | None:
        place = self._place_of(attempt)
        if not self._scheduler.succeed(attempt, time.monotonic()):
            self._folder.storage.remove(place)
            return None
        return made, place

    def _fail(self, attempt: Attempt, fault: Fault, failure: str, details: str = "") -> None:
        self._folder.storage.remove(self._place_of(attempt))
        after = self._scheduler.fail(attempt, fault)
        if after is Next.GIVE_UP:
            self._given_up.append(FailedUnit(attempt.unit, failure, details, lasting=fault is Fault.LASTING_ERROR))
        elif after is Next.TRY_AGAIN:
            self._timer.retry_unit(attempt.unit, failure)
            self._progress.note(f"Unit {attempt.unit} is tried again: {failure}.")

    def _place_of(self, attempt: Attempt) -> str:
        return self._folder.attempt(attempt.unit, attempt.number)

    def _lose(self, members: Iterable[Member]) -> None:
        """End workers whose server is gone; their units are tried again."""
        for member in members:
            attempts = [call.attempt for call in self._calls.values() if call.member is member]
            self._kill(member, "the machine of its server is gone")
            for attempt in attempts:
                if attempt is not None:
                    self._fail(attempt, Fault.LOSS, "the machine of its server is gone")

    def _replace_failed_start(self, member: Member, error: Exception, hopeless: bool) -> None:
        """Start another worker: one machine may be out of order, but not all of them."""
        self._kill(member, describe(error))
        self._failed_starts += 1
        nobody_works = not self._idle and not any(call.attempt for call in self._calls.values())
        if hopeless or (self._failed_starts >= DEATHS and nobody_works):
            raise error from None
        note = f"A worker could not start: {describe(error)}."
        if note != self._last_failed_start:
            self._last_failed_start = note
            self._progress.note(note)
        if self._failed_starts < DEATHS:
            self.fit_staff()

    def _replace_hanging_workers(self) -> None:
        overdue = self._scheduler.overdue(time.monotonic())
        for member, attempt in [(c.member, c.attempt) for c in self._calls.values() if c.attempt in overdue]:
            assert attempt is not None, "a start has no time limit"
            hours = self._scheduler.deadline_seconds / 3600
            self._kill(member, f"its unit took longer than {hours:g} h")
            self._fail(attempt, Fault.TIMEOUT, f"it took longer than {hours:g} h, {ATTEMPTS} times")
        if overdue:
            self.fit_staff()

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
        self._progress.note(self._staff.describe_waiting(self._scheduler.waiting))
