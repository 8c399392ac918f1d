"""Nodes that are slow: another one runs their last units a second time, and the first result counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.hosts import Hosts
from tests.helpers.jobs import digests
from tests.helpers.ray_workers import continue_all, stop_in_units, workers_below

from .conftest import Cluster, Jobs, Run, n_records

pytestmark = pytest.mark.cluster

VERB = "tokenize"
# After so many units the time of a typical one is known.
UNITS_BEFORE = 6
# Ray kills the processes of a job a moment after its driver has ended.
END_SECONDS = 30.0


@pytest.fixture(scope="module")
def cluster(module_hosts: Hosts) -> Cluster:
    return Cluster(module_hosts, (1, 1, 1))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(cluster: Cluster, jobs: Jobs, output: Path) -> Iterator[Run]:
    """A job that has made some units."""
    run = cluster.start(jobs.command(VERB, output), cluster.nodes[0])
    run.wait_until(lambda: n_records(output) >= UNITS_BEFORE and cluster.have_loaded(3), "some units")
    yield run
    run.kill()


def test_job_does_not_wait_for_stopped_nodes(cluster: Cluster, run: Run, jobs: Jobs, output: Path) -> None:
    """Their workers are stopped within units that they never end."""
    stop(cluster, run)
    assert_finished(cluster, run, jobs, output)


def test_late_results_are_removed(cluster: Cluster, run: Run, jobs: Jobs, output: Path) -> None:
    """Two workers are stopped within units, and continue once one of these was made by another worker."""
    stopped = stop(cluster, run)
    run.wait_until(lambda: n_records(output) == jobs.n_units(VERB) - 1, "a second attempt at a unit")
    assert len(attempts(output)) >= 2, "the one whose unit is made, and one whose unit is not"
    continue_all(stopped)
    assert_finished(cluster, run, jobs, output)


def stop(cluster: Cluster, run: Run) -> set[int]:
    """Stop the workers of the second and the third node within units."""
    stopped: dict[int, set[int]] = {}

    def stop_each() -> bool:
        for number in {1, 2} - stopped.keys():
            workers = stop_in_units(cluster.nodes[number].node)
            stopped.update({number: workers} if workers else {})
        return len(stopped) == 2

    run.wait_until(stop_each, "units of slow nodes")
    return set().union(*stopped.values())


def attempts(output: Path) -> list[Path]:
    """Folders of attempts at units."""
    return list((output / "_codectok").glob("tmp/*/*"))


def assert_finished(cluster: Cluster, run: Run, jobs: Jobs, output: Path) -> None:
    """Assert that a job ends with the bytes of one machine after second attempts, and that it leaves nothing behind."""
    status, told = run.end()
    assert status == 0, told
    assert "ran a second time on another machine" in told, told
    deadline = time.monotonic() + END_SECONDS
    while any(workers_below(host.node) for host in cluster.nodes):
        assert time.monotonic() < deadline, "workers are left"
        time.sleep(0.1)
    assert not attempts(output)
    assert digests(output) == jobs.expected(VERB)
