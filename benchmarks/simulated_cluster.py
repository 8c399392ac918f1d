"""A cluster whose workers are simulated, for the real scheduler; see `scale.py`."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codectok.pipelines.engine.scheduling.scheduler import Attempt, Fault, Next, Scheduler

# Kinds of events, in the order in which they are handled at the same time.
END, LOSS, NOTICE, RETURN, TICK = range(5)
TICK_SECONDS = 1.0
DRAWS = 1_000_003


@dataclass(frozen=True)
class Faults:
    """Faults of a cluster.

    Attributes:
        hours_between_losses: of one machine; 0 for no losses.
        notice_seconds: after which the driver learns of a loss.
        replacement_seconds: after which another machine takes the place.
        slow_nodes: share of machines that are slow.
        slowness: factor of their times.
        hangs: share of attempts that are much slower.
        hang_factor: factor of their times.
    """

    hours_between_losses: float = 24.0
    notice_seconds: float = 30.0
    replacement_seconds: float = 600.0
    slow_nodes: float = 0.01
    slowness: float = 3.0
    hangs: float = 0.0005
    hang_factor: float = 20.0


NONE = Faults(hours_between_losses=0.0, slow_nodes=0.0, hangs=0.0)


@dataclass
class Totals:
    """Result of a simulated run; times in seconds.

    Attributes:
        makespan: time of the run.
        work: time that its units take on a sound worker.
        capacity: time that sound workers, or shares of slow ones, were there.
        scheduling: real time of the scheduler.
        driver: time in which the driver was busy.
        units: units made.
        losses: machines that failed.
        lost_work: time of workers spent on units that failed with their machine.
        copies: units that ran a second time.
    """

    makespan: float = 0.0
    work: float = 0.0
    capacity: float = 0.0
    scheduling: float = 0.0
    driver: float = 0.0
    units: int = 0
    losses: int = 0
    lost_work: float = 0.0
    copies: int = 0


class SimulatedCluster:
    """Runs the units of a scheduler on simulated workers.

    Args:
        scheduler: the real one.
        nodes: number of machines.
        workers: workers on each.
        seconds: time of each unit on a sound worker, shape (units,).
        driver_seconds: time that the driver needs for a unit, beside the scheduler.
        faults: faults of machines.
        seed: of the faults.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        nodes: int,
        workers: int,
        seconds: npt.NDArray[np.float64],
        driver_seconds: float,
        faults: Faults,
        seed: int,
    ) -> None:
        self._scheduler, self._nodes, self._workers = scheduler, nodes, workers
        self._seconds, self._driver_seconds, self._faults = seconds, driver_seconds, faults
        self._generator = np.random.default_rng(seed)
        self._hangs = self._generator.random(DRAWS) < faults.hangs
        self._speeds = np.where(self._generator.random(nodes) < faults.slow_nodes, 1 / faults.slowness, 1.0)
        self._names = [str(number) for number in range(nodes)]
        self._running: dict[int, Attempt] = {}  # by worker
        self._epochs = [0] * (nodes * workers)  # ends of attempts of earlier epochs are void
        self._idle: list[int] = []
        self._away = np.zeros(nodes, bool)
        self._events: list[tuple[float, int, int, int]] = []
        self._begun = 0
        self._driver_free = 0.0
        self._totals = Totals()
        self._away_since = np.zeros(nodes)

    def run(self) -> Totals:
        """Run until no unit is left."""
        started = time.process_time()
        events = self._events
        for worker in range(self._nodes * self._workers):
            self._begin(worker, 0.0)
        if self._faults.hours_between_losses:
            heapq.heappush(events, (self._next_loss(0.0), LOSS, 0, 0))
        heapq.heappush(events, (TICK_SECONDS, TICK, 0, 0))
        now = 0.0
        while not self._scheduler.finished:
            now, kind, subject, epoch = heapq.heappop(events)
            if kind == END:
                self._end(now, subject, epoch)
            elif kind == TICK:
                self._offer_copies(now)
                heapq.heappush(events, (now + TICK_SECONDS, TICK, 0, 0))
            else:
                self._change_nodes(now, kind, subject)
        totals = self._totals
        totals.makespan = max(now, self._driver_free)
        totals.scheduling = time.process_time() - started
        away = (totals.makespan - self._away_since)[self._away]
        totals.capacity += self._workers * float(
            self._speeds.sum() * totals.makespan - (away * self._speeds[self._away]).sum()
        )
        return totals

    def _begin(self, worker: int, now: float) -> None:
        node = worker // self._workers
        attempt = self._scheduler.begin(self._names[node], now)
        if attempt is None:
            self._idle.append(worker)
            return
        start = max(now, self._driver_free) + self._driver_seconds
        self._driver_free = start
        self._totals.driver += self._driver_seconds
        self._totals.copies += attempt.is_copy
        self._running[worker] = attempt
        self._begun += 1
        seconds = self._seconds[attempt.unit] / self._speeds[node]
        if self._hangs[self._begun % DRAWS]:
            seconds *= self._faults.hang_factor
        heapq.heappush(self._events, (start + seconds, END, worker, self._epochs[worker]))

    def _end(self, now: float, worker: int, epoch: int) -> None:
        if epoch != self._epochs[worker]:
            return
        attempt = self._running.pop(worker)
        if self._scheduler.succeed(attempt, now):
            self._totals.units += 1
            self._totals.work += float(self._seconds[attempt.unit])
        self._begin(worker, now)

    def _offer_copies(self, now: float) -> None:
        idle, self._idle = self._idle, []
        for worker in idle:
            if not self._away[worker // self._workers]:
                self._begin(worker, now)

    def _next_loss(self, now: float) -> float:
        mean = self._faults.hours_between_losses * 3600 / self._nodes
        return now + float(self._generator.exponential(mean))

    def _change_nodes(self, now: float, kind: int, node: int) -> None:
        workers = range(node * self._workers, (node + 1) * self._workers)
        if kind == LOSS:
            heapq.heappush(self._events, (self._next_loss(now), LOSS, 0, 0))
            node = int(self._generator.integers(self._nodes))
            if self._away[node]:
                return
            self._away[node], self._away_since[node] = True, now
            self._totals.losses += 1
            for worker in range(node * self._workers, (node + 1) * self._workers):
                self._epochs[worker] += 1
                if worker in self._running:
                    self._totals.lost_work += now - self._running[worker].started
            heapq.heappush(self._events, (now + self._faults.notice_seconds, NOTICE, node, 0))
            heapq.heappush(self._events, (now + self._faults.replacement_seconds, RETURN, node, 0))
        elif kind == NOTICE:
            for worker in workers:
                if worker in self._running:
                    after = self._scheduler.fail(self._running.pop(worker), Fault.LOSS)
                    assert after is not Next.GIVE_UP, "losses do not end a unit"
        else:
            self._totals.capacity -= self._workers * self._speeds[node] * (now - self._away_since[node])
            self._away[node], self._speeds[node] = False, 1.0
            for worker in workers:
                self._begin(worker, now)
