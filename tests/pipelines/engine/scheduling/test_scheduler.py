"""Attempts at units: each unit ends once, and slow ones get a copy on another machine."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from codectok.pipelines.engine.faults import ATTEMPTS
from codectok.pipelines.engine.scheduling.scheduler import DEATHS, LOSSES, Attempt, Fault, Next, Scheduler


def scheduler(n_units: int, deadline_seconds: float = 1e9) -> Scheduler:
    return Scheduler(range(n_units), np.ones(n_units), deadline_seconds)


@dataclass
class Run:
    """A simulated run: workers by name of their node, and an outcome for each attempt."""

    scheduler: Scheduler
    nodes: list[str]
    seconds: Callable[[Attempt], float]
    fault: Callable[[Attempt], Fault | None] = lambda attempt: None
    made: list[int] = field(default_factory=list)
    given_up: list[int] = field(default_factory=list)
    copies: list[Attempt] = field(default_factory=list)
    now: float = 0.0

    def go(self) -> Run:
        idle = list(self.nodes)
        ends: list[tuple[float, int, Attempt]] = []
        seen: set[tuple[int, int]] = set()
        while not self.scheduler.finished:
            still_idle = []
            for node in idle:
                waiting = self.scheduler.waiting
                attempt = self.scheduler.begin(node, self.now)
                if attempt is None:
                    still_idle.append(node)
                    continue
                assert (attempt.unit, attempt.number) not in seen
                seen.add((attempt.unit, attempt.number))
                assert attempt.is_copy == (waiting == 0)
                if attempt.is_copy:
                    self.copies.append(attempt)
                heapq.heappush(ends, (self.now + self.seconds(attempt), len(seen), attempt))
            idle = still_idle
            if not idle or ends[0][0] <= self.now + 1:
                self.now, _, attempt = heapq.heappop(ends)
                self._end(attempt)
                idle.append(attempt.node)
            else:
                self.now += 1
        return self

    def _end(self, attempt: Attempt) -> None:
        fault = self.fault(attempt)
        if fault is None:
            if self.scheduler.succeed(attempt, self.now):
                self.made.append(attempt.unit)
        elif self.scheduler.fail(attempt, fault) is Next.GIVE_UP:
            self.given_up.append(attempt.unit)


@pytest.mark.parametrize("seed", range(30))
def test_each_unit_ends_once(seed: int) -> None:
    """With faults of all kinds, slow machines and copies."""
    generator = random.Random(seed)
    share = generator.choice([0.0, 0.1, 0.6])

    def fault(attempt: Attempt) -> Fault | None:
        return generator.choice(list(Fault)) if generator.random() < share else None

    def seconds(attempt: Attempt) -> float:
        return generator.uniform(1, 5) * (20 if attempt.node == "slow" else 1)

    nodes = ["slow", *(f"node-{generator.randrange(4)}" for _ in range(generator.randrange(1, 9)))]
    run = Run(scheduler(60), nodes, seconds, fault).go()
    assert sorted(run.made + run.given_up) == list(range(60))
    assert not run.given_up or share


@pytest.mark.parametrize(
    ("fault", "attempts"),
    [
        (Fault.ERROR, ATTEMPTS),
        (Fault.LASTING_ERROR, 1),
        (Fault.TIMEOUT, ATTEMPTS),
        (Fault.DEATH, DEATHS),
        (Fault.LOSS, LOSSES),
    ],
)
def test_unit_is_given_up_after_some_faults(fault: Fault, attempts: int) -> None:
    found = scheduler(2)
    counts: Counter[int] = Counter()

    def count(attempt: Attempt) -> Fault | None:
        counts[attempt.unit] += 1
        return fault if attempt.unit == 1 else None

    run = Run(found, ["one"], lambda _: 1.0, count).go()
    assert (run.made, run.given_up) == ([0], [1])
    assert counts == {0: 1, 1: attempts}


def test_units_that_kill_workers_run_with_care() -> None:
    found = scheduler(1)
    cares = []
    for _ in range(3):
        attempt = found.begin("one", 0.0)
        assert attempt is not None
        cares.append(attempt.with_care)
        assert found.fail(attempt, Fault.DEATH) is Next.TRY_AGAIN
    assert cares == [False, False, True]


def test_units_of_a_slow_machine_are_copied() -> None:
    """Without copies the run would end with the slow machine's last unit, after 2,000 s."""

    def seconds(attempt: Attempt) -> float:
        return 2000.0 if attempt.node == "slow" else 10.0

    run = Run(scheduler(60), ["slow", "fast", "fast"], seconds).go()
    assert sorted(run.made) == list(range(60))
    assert [copy.node for copy in run.copies] == ["fast"]
    assert run.now < 60 * 10 / 2 + 60


def test_units_of_the_only_machine_are_not_copied() -> None:
    run = Run(scheduler(20), ["one"] * 4, lambda attempt: 500.0 if attempt.unit == 19 else 10.0).go()
    assert not run.copies


def test_slower_attempt_is_told_to_be_removed() -> None:
    found = scheduler(8)
    for _ in range(7):
        attempt = found.begin("fast", 0.0)
        assert attempt is not None
        assert found.succeed(attempt, 10.0)
    first = found.begin("slow", 10.0)
    assert first is not None
    assert found.begin("fast", 29.0) is None  # not yet slow
    assert found.begin("slow", 31.0) is None
    copy = found.begin("fast", 31.0)
    assert copy is not None
    assert copy.is_copy
    assert (copy.unit, copy.number) == (first.unit, 2)
    assert found.begin("other", 100.0) is None  # two are enough
    assert found.succeed(copy, 41.0)
    assert found.finished
    assert not found.succeed(first, 90.0)
    assert found.finished


@pytest.mark.parametrize("survivor", [0, 1])
def test_unit_with_a_failed_attempt_is_not_tried_again_while_another_runs(survivor: int) -> None:
    found = scheduler(8)
    for _ in range(7):
        attempt = found.begin("fast", 0.0)
        assert attempt is not None
        found.succeed(attempt, 10.0)
    attempts = [found.begin("slow", 10.0), found.begin("fast", 60.0)]
    lost, kept = attempts[1 - survivor], attempts[survivor]
    assert lost is not None
    assert kept is not None
    assert found.fail(lost, Fault.DEATH) is Next.NOTHING
    assert (found.running, found.waiting) == (1, 0)
    assert found.fail(kept, Fault.DEATH) is Next.TRY_AGAIN
    assert (found.running, found.waiting) == (0, 1)
    last = found.begin("fast", 70.0)
    assert last is not None
    assert last.number == 3
    assert last.with_care


def test_overdue_attempts_are_found() -> None:
    found = scheduler(3, deadline_seconds=100.0)
    attempts = [found.begin("one", now) for now in (0.0, 50.0, 60.0)]
    assert found.overdue(100.0) == []
    assert found.overdue(155.0) == attempts[:2]
