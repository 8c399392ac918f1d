from __future__ import annotations

import timeit
from collections.abc import Iterator
from time import sleep

import pytest

from codectok.phases import ENCODING, OTHER, READING, PhaseClock, sum_phases


def test_phases_add_up_to_the_elapsed_time() -> None:
    clock = PhaseClock()

    def blocks() -> Iterator[int]:
        for number in range(3):
            sleep(0.01)
            yield number

    def batches() -> Iterator[int]:
        for number in clock.steps(READING, blocks()):
            sleep(0.02)
            yield number

    for _ in clock.steps(ENCODING, batches()):
        sleep(0.005)
    seconds = clock.seconds()
    assert sum(seconds.values()) == pytest.approx(clock.elapsed, rel=0.05, abs=0.002)
    assert seconds[READING] >= 0.03
    assert seconds[ENCODING] >= 0.06
    assert seconds[OTHER] >= 0.015
    assert seconds[READING] < seconds[ENCODING]


def test_phase_continues_after_an_error() -> None:
    clock = PhaseClock()

    def broken() -> Iterator[int]:
        yield 1
        raise ValueError

    with pytest.raises(ValueError), clock.during(ENCODING):
        list(clock.steps(READING, broken()))
    assert clock.switch(OTHER) == OTHER


def test_steps_close_their_iterator() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from range(3)
        finally:
            closed.append(True)

    steps = PhaseClock().steps(READING, items())
    next(steps)
    steps.close()
    assert closed


def test_a_phase_costs_microseconds_at_most() -> None:
    clock = PhaseClock()
    rounds = 2000
    assert min(timeit.repeat(lambda: clock.switch(READING), number=rounds, repeat=5)) / rounds < 5e-6


def test_phases_of_several_clocks_are_added() -> None:
    assert sum_phases([{"a": 1.0, "b": 2.0}, {"b": 0.5, "c": 1.0}]) == {"a": 1.0, "b": 2.5, "c": 1.0}
