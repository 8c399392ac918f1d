"""Decides which unit an idle worker gets, and what happens after each attempt.

Callers tell it the time, so that a simulation can run it with another clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

from codectok.pipelines.engine.faults import ATTEMPTS

from .pace import Pace
from .queue import UnitQueue

# Deaths of workers say little about a file, since nodes get lost; but a unit is not tried forever.
DEATHS = 10
# Losses of machines say nothing about it; but a unit may be what exhausts their memory.
LOSSES = 30
DEATHS_BEFORE_CARE = 2
# Time between two looks at the running units for slow ones.
LOOK_SECONDS = 1.0


class Fault(Enum):
    """How an attempt failed."""

    ERROR = "error"
    LASTING_ERROR = "lasting error"
    TIMEOUT = "timeout"
    DEATH = "death of the worker"
    LOSS = "loss of the machine"


MOST_FAULTS = {
    Fault.ERROR: ATTEMPTS,
    Fault.LASTING_ERROR: 1,
    Fault.TIMEOUT: ATTEMPTS,
    Fault.DEATH: DEATHS,
    Fault.LOSS: LOSSES,
}


class Next(Enum):
    """What follows a failed attempt at a unit."""

    TRY_AGAIN = "try again"
    GIVE_UP = "give up"
    # Another attempt at the unit has made it, or is running.
    NOTHING = "nothing"


@dataclass(eq=False)
class Task:
    """A unit that runs, or has failed before, with the number of its faults by kind."""

    unit: int
    weight: float
    attempts: int = 0
    faults: dict[Fault, int] = field(default_factory=lambda: dict.fromkeys(Fault, 0))
    running: int = 0
    ended: bool = False

    @property
    def with_care(self) -> bool:
        """True if the unit runs in a child process, since it may kill workers."""
        return self.faults[Fault.DEATH] >= DEATHS_BEFORE_CARE

    @property
    def is_hopeless(self) -> bool:
        """True if the unit is not tried again."""
        return any(self.faults[fault] >= limit for fault, limit in MOST_FAULTS.items())


@dataclass(frozen=True, eq=False)
class Attempt:
    """A running attempt at a unit.

    Attributes:
        task: the unit.
        number: of the attempt at the unit, from 1 on.
        node: name of the machine.
        started: time of its start.
        with_care: see `Task.with_care`.
        is_copy: another attempt runs at the same time.
    """

    task: Task
    number: int
    node: str
    started: float
    with_care: bool
    is_copy: bool

    @property
    def unit(self) -> int:
        """Number of the unit."""
        return self.task.unit


class Scheduler:
    """The units of a run: which wait, which run, and which have failed how often.

    Once no unit waits, idle workers of other machines run slow units a second time; the first attempt that succeeds
    counts. Its bytes are the ones that the other would have written.

    Args:
        units: numbers in the order of the plan.
        weights: expected relative time of each, above 0, shape (units,).
        deadline_seconds: time limit of an attempt.
    """

    def __init__(self, units: Sequence[int], weights: npt.NDArray[np.float64], deadline_seconds: float) -> None:
        self.deadline_seconds = deadline_seconds
        self._queue = UnitQueue(units, weights)
        self._numbers = np.asarray(units, np.int64)
        self._weights = weights
        self._again: dict[int, Task] = {}  # tasks that have failed before and wait
        self._running: dict[Attempt, None] = {}  # in the order of their starts
        self._units_running = 0
        self._pace = Pace()
        self._slow: deque[Attempt] = deque()
        self._looked = float("-inf")

    @property
    def waiting(self) -> int:
        """Number of units that wait for a worker."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Number of units that are running."""
        return self._units_running

    @property
    def finished(self) -> bool:
        """True if each unit was made or has failed for good."""
        return not self.waiting and not self.running

    def begin(self, node: str, now: float) -> Attempt | None:
        """Start an attempt on an idle worker of the machine `node`; None if there is nothing for it to do."""
        if self.waiting:
            unit = self._queue.pop()
            task = self._again.pop(unit, None) or Task(unit, self._weight(unit))
        else:
            slow = self._slow_attempt(node, now)
            if slow is None:
                return None
            task = slow.task
        task.attempts += 1
        self._units_running += not task.running
        attempt = Attempt(task, task.attempts, node, now, task.with_care, is_copy=task.running > 0)
        task.running += 1
        self._running[attempt] = None
        return attempt

    def succeed(self, attempt: Attempt, now: float) -> bool:
        """End an attempt that has made its unit; False if another attempt was faster, and this one is to be removed."""
        if self._end(attempt):
            return False
        attempt.task.ended = True
        self._units_running -= 1
        self._pace.add(now - attempt.started, attempt.task.weight)
        return True

    def fail(self, attempt: Attempt, fault: Fault) -> Next:
        """End an attempt that has failed."""
        if self._end(attempt):
            return Next.NOTHING
        task = attempt.task
        task.faults[fault] += 1
        if task.is_hopeless:
            task.ended = True
            self._units_running -= 1
            return Next.GIVE_UP
        if task.running:
            return Next.NOTHING
        self._units_running -= 1
        self._again[task.unit] = task
        self._queue.append(task.unit)
        return Next.TRY_AGAIN

    def overdue(self, now: float) -> list[Attempt]:
        """Attempts that have run longer than allowed."""
        found = []
        for attempt in self._running:
            if now - attempt.started <= self.deadline_seconds:
                break  # the others started later
            found.append(attempt)
        return found

    def _end(self, attempt: Attempt) -> bool:
        """Forget a running attempt; True if its unit has ended by another one."""
        del self._running[attempt]
        attempt.task.running -= 1
        return attempt.task.ended

    def _weight(self, unit: int) -> float:
        return float(self._weights[np.searchsorted(self._numbers, unit)])

    def _slow_attempt(self, node: str, now: float) -> Attempt | None:
        """Take the slow attempt that has run longest, on another machine than `node`; None if there is none."""
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._slow = deque(one for one in self._running if self._is_slow(one, now))
        self._slow = deque(one for one in self._slow if one in self._running and one.task.running == 1)
        chosen = next((one for one in self._slow if one.node != node), None)
        if chosen is not None:
            self._slow.remove(chosen)
        return chosen

    def _is_slow(self, attempt: Attempt, now: float) -> bool:
        task = attempt.task
        limit = self._pace.slow_after(task.weight)
        return limit is not None and now - attempt.started > limit and task.running == 1 and not task.ended
