"""Pool of Ray actors: when one dies, hangs or fails, another one takes its unit; it grows with the cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

from codectok.errors import CodectokError
from codectok.pipelines.engine.faults import FailedUnit, LastingUnitError, describe, stops_the_job
from codectok.pipelines.engine.output.folder import MadeUnit, OutputFolder
from codectok.pipelines.engine.planning.plan import Plan
from codectok.pipelines.engine.progress import ProgressCallback
from codectok.pipelines.engine.scheduling.node_faults import NodeFaults
from codectok.pipelines.engine.scheduling.scheduler import DEATHS, Attempt, Fault, Next, Scheduler
from codectok.pipelines.engine.timing import RunTimer

from .cluster_nodes import Nodes, cluster_nodes
from .local import Outcome
from .server_actor import Unfit
from .servers import ServerGroup, ServerHandle, kill
from .worker import Started
from .workers import WorkerGroup, WorkerHandle

POLL_SECONDS = 1.0
# Time between two looks at the machines of the cluster.
FIT_SECONDS = 10.0
BUSY_REPORT_SECONDS = 10.0
WAITING_NOTE_SECONDS = 30.0
DEATH_SECONDS = 5.0


@dataclass(frozen=True)
class _Call:
    """A running call of a worker: of `start` (`attempt` is None) or of `run`."""

    handle: WorkerHandle
    attempt: Attempt | None


class WorkerPool:
    """The actors of one run.

    Args:
        folder: output folder.
        plan: holds the units.
        scheduler: chooses the units.
        workers: the workers.
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
        workers: WorkerGroup,
        servers: ServerGroup,
        progress: ProgressCallback,
        check_ray: Callable[[], None],
        timer: RunTimer,
    ) -> None:
        self._folder, self._plan, self._scheduler = folder, plan, scheduler
        self._workers, self._servers, self._progress = workers, servers, progress
        self._check_ray, self._timer = check_ray, timer
        self._idle: dict[WorkerHandle, None] = {}
        self._nodes = Nodes({})
        self._must_fit = False
        self._faults = NodeFaults()
        self._calls: dict[Any, _Call] = {}
        self._given_up: list[FailedUnit] = []
        self._any_started, self._failed_starts, self._last_failed_start = False, 0, ""
        self._fitted = self._last_busy_report = self._last_sign = time.monotonic()

    def run(self) -> Generator[Outcome | None, None, None]:
        """Run all units, and yield each when it is finished or has failed its last attempt; None about every second."""
        self.fit_workers()
        while not self._scheduler.finished:
            if time.monotonic() - self._fitted > (POLL_SECONDS if self._must_fit else FIT_SECONDS):
                self.fit_workers()
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
            yield None
            self._report_busy_share()
            self._tell_what_it_waits_for()
        self._servers.measure()

    def fit_workers(self) -> None:
        """Start or end workers, so that they fit the cluster and the units that are left; does not wait for them."""
        self._fitted, found = time.monotonic(), cluster_nodes()
        if found is None:
            self._must_fit = True
            return
        self._must_fit, self._nodes = False, found
        units = self._scheduler.waiting + self._scheduler.running
        self._lose_servers(self._servers.update(self._nodes, units), "the machine of its encoder is gone")
        wanted = self._workers.wanted(self._nodes, units)
        for _ in range(wanted - len(self._workers)):
            handle = self._workers.start()
            if handle is None:
                break
            # An actor that waits for a free place holds no unit: it gets its first one when it is ready.
            self._calls[handle.call] = _Call(handle, None)
        pending = [handle for handle in self._workers.all() if not handle.node]
        # The last ones: the others may have a place, and load their libraries.
        surplus = max(0, len(self._workers) - max(wanted, 1))
        for handle in pending[max(0, len(pending) - surplus) :]:
            self._kill(handle)

    def stop(self) -> None:
        """Kill all workers, and wait for a moment until they are dead, so that they write no more."""
        import ray

        references = [reference for reference, call in self._calls.items() if call.attempt is not None]
        for handle in self._workers.all():
            self._kill(handle)
        if references:
            ray.wait(references, num_returns=len(references), timeout=DEATH_SECONDS)

    def _kill(self, handle: WorkerHandle, reason: str = "") -> Attempt | None:
        """Kill a worker, and return the attempt that it was running."""
        if handle not in self._workers:
            return None  # it has ended with its machine or its server
        self._workers.end(handle, reason)
        self._idle.pop(handle, None)
        call = self._calls.pop(handle.call, None)
        return None if call is None else call.attempt

    def _give_work(self) -> None:
        for handle in list(self._idle):
            attempt = self._scheduler.begin(handle.node, time.monotonic())
            if attempt is None:
                continue
            del self._idle[handle]
            if attempt.is_copy:
                self._timer.units_run_twice += 1
            else:
                self._timer.begin_unit(attempt.unit, handle.host, attempt.number)
            unit = self._plan.unit(attempt.unit)
            handle.call = handle.actor.run.remote(unit, self._place_of(attempt), attempt.with_care)
            self._calls[handle.call] = _Call(handle, attempt)

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

        handle, attempt = call.handle, call.attempt
        try:
            answer: MadeUnit | Started | Unfit = ray.get(reference)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if attempt is None:
                self._replace_failed_start(handle, cause, hopeless=not self._any_started)
                return None
            self._idle[handle] = None
            if attempt.task.ended:
                self._fail(attempt, Fault.ERROR, describe(cause))  # another attempt has made the unit
                return None
            if stops_the_job(cause) and not self._is_of_machine(handle, cause):
                raise cause from None
            lasting = isinstance(cause, LastingUnitError)
            fault = Fault.LASTING_ERROR if lasting else Fault.ERROR
            if not lasting and self._faults.is_out_of_order(handle.node, stops_the_job(cause)):
                self._exclude(handle, describe(cause))
                fault = Fault.LOSS
            self._fail(attempt, fault, describe(cause), str(error))
            return None
        except RayError as error:
            # The actor is gone: it crashed, was killed, ran out of memory or lost its machine.
            self._check_ray()
            if attempt is None:
                death = CodectokError(f"Workers die while they start: {describe(error)}.")
                self._replace_failed_start(handle, death, hopeless=False)
                return None
            self._kill(handle, describe(error))
            if time.monotonic() - self._fitted > POLL_SECONDS:
                self._nodes = cluster_nodes() or self._nodes
            self._must_fit = True  # not now: many workers of a lost machine end at the same time
            if handle.node in self._nodes:
                deaths = attempt.task.faults[Fault.DEATH] + 1
                self._fail(attempt, Fault.DEATH, f"its worker died {deaths} times ({describe(error)})")
            else:
                self._fail(attempt, Fault.LOSS, f"its machine {handle.host} is gone")
            return None
        if isinstance(answer, Unfit):
            self._avoid(answer.node)
            self._replace_failed_start(handle, answer.error, hopeless=not self._any_started)
            return None
        self._idle[handle] = None
        self._any_started, self._failed_starts = True, 0
        if isinstance(answer, MadeUnit):
            assert attempt is not None, "a start makes no unit"
            self._faults.succeeded(handle.node)
            return self._made(answer, attempt)
        handle.node, handle.host = answer.node, answer.host
        self._timer.worker_ready(handle, answer.phases, answer.host)
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

    def _avoid(self, node: str) -> None:
        """Start no more actors on a machine."""
        self._workers.avoid(node)
        self._lose_servers(self._servers.avoid(node), "the machine of its encoder cannot work on this job")

    def _exclude(self, failed: WorkerHandle, reason: str) -> None:
        """End all workers of a machine that is out of order, and start no more there."""
        self._progress.note(f"The machine {failed.host} is left out: {reason}.")
        self._kill(failed, reason)
        self._avoid(failed.node)
        self._lose([handle for handle in self._workers.all() if handle.node == failed.node], reason)

    def _is_of_machine(self, handle: WorkerHandle, error: Exception) -> bool:
        """True if an error that ends a job may be of one machine alone, such as its full disk, and others work."""
        return isinstance(error, OSError) and self._faults.others_work(handle.node)

    def _lose_servers(self, servers: Iterable[ServerHandle], reason: str) -> None:
        for server in servers:
            self._lose([handle for handle in self._workers.all() if handle.server is server], reason)
            kill(server)

    def _lose(self, handles: Iterable[WorkerHandle], reason: str) -> None:
        """End workers; their units are tried again."""
        for handle in handles:
            attempt = self._kill(handle, reason)
            if attempt is not None:
                self._fail(attempt, Fault.LOSS, reason)

    def _replace_failed_start(self, handle: WorkerHandle, error: Exception, hopeless: bool) -> None:
        """Start another worker: one machine may be out of order, but not all of them."""
        self._kill(handle, describe(error))
        self._failed_starts += 1
        if hopeless or (self._failed_starts >= DEATHS and not self._is_any_ready()):
            raise error from None
        note = f"A worker could not start: {describe(error)}."
        if note != self._last_failed_start:
            self._last_failed_start = note
            self._progress.note(note)
        if self._failed_starts < DEATHS:
            self.fit_workers()

    def _replace_hanging_workers(self) -> None:
        overdue = self._scheduler.overdue(time.monotonic())
        for handle, attempt in [(c.handle, c.attempt) for c in self._calls.values() if c.attempt in overdue]:
            assert attempt is not None, "a start has no time limit"
            hours = self._scheduler.deadline_seconds / 3600
            self._kill(handle, f"its unit took longer than {hours:g} h")
            times = attempt.task.faults[Fault.TIMEOUT] + 1
            often = f", {times} times" if times > 1 else ""
            self._fail(attempt, Fault.TIMEOUT, f"it took longer than {hours:g} h{often}")
        if overdue:
            self.fit_workers()

    def _is_any_ready(self) -> bool:
        """True if a worker runs a unit or waits for one."""
        return bool(self._idle) or any(call.attempt for call in self._calls.values())

    def _report_busy_share(self) -> None:
        now = time.monotonic()
        if now - self._last_busy_report > BUSY_REPORT_SECONDS:
            self._last_busy_report = now
            share = self._servers.measure()
            if share is not None:
                self._progress.busy(share)

    def _tell_what_it_waits_for(self) -> None:
        now = time.monotonic()
        if self._is_any_ready() or now - self._last_sign < WAITING_NOTE_SECONDS:
            return
        self._last_sign = now
        self._progress.note(self._workers.describe_waiting(self._nodes, self._scheduler.waiting))
