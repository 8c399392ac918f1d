"""Number of workers that a run asks for."""

from __future__ import annotations

import pytest

from codectok.errors import InputError
from codectok.pipelines.engine.executors.placement import LEAST_SPARE, MOST_SPARE, Placement


def test_workers_fit_a_fixed_cluster() -> None:
    assert Placement(2, None, grows=False).workers(cores=8, units=100) == 4
    assert Placement(2, 3, grows=False).workers(cores=8, units=100) == 3
    assert Placement(1, 9, grows=False).workers(cores=8, units=5) == 5
    with pytest.raises(InputError, match="no place for a worker, which needs 2 CPUs"):
        Placement(2, None, grows=False).places(cores=1, units=1)


def test_cluster_that_may_grow_is_asked_for_more() -> None:
    """It doubles in each step, from no machine on, up to the limits of the run."""
    growing = Placement(2, None, grows=True)
    assert growing.workers(cores=0, units=100) == LEAST_SPARE
    assert growing.workers(cores=20, units=100) == 20
    assert growing.workers(cores=20, units=12) == 12
    assert growing.workers(cores=20_000, units=10**7) == 10_000 + MOST_SPARE
    assert Placement(2, 11, grows=True).workers(cores=20, units=100) == 11
    assert growing.places(cores=20, units=100) == 10
    assert growing.places(cores=0, units=100) == 0
