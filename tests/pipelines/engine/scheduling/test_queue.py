"""Order of waiting units."""

from __future__ import annotations

import numpy as np
import pytest

from codectok.pipelines.engine.scheduling.queue import UnitQueue


def popped(queue: UnitQueue) -> list[int]:
    return [queue.pop() for _ in range(len(queue))]


def test_equal_units_keep_the_order_of_the_plan() -> None:
    assert popped(UnitQueue([3, 5, 8], np.array([10.0, 11.0, 9.0]))) == [3, 5, 8]


def test_heavy_units_run_first() -> None:
    weights = np.array([1.0, 9.0, 1.0, 2.0, 1.0, 9.0, 30.0, 1.4, 1.0, 1.0, 1.0])
    assert popped(UnitQueue(range(100, 111), weights)) == [106, 101, 105, 103, 100, 102, 104, 107, 108, 109, 110]


def test_units_to_be_tried_again_come_last() -> None:
    queue = UnitQueue(range(4), np.array([1.0, 1.0, 5.0, 1.0]))
    assert (queue.pop(), queue.pop()) == (2, 0)
    queue.append(2)
    assert len(queue) == 3
    assert popped(queue) == [1, 3, 2]
    with pytest.raises(IndexError):
        queue.pop()


def test_queue_without_units_is_empty() -> None:
    assert len(UnitQueue([], np.empty(0))) == 0
