"""A node that is slow: others run its last units a second time, and the job does not wait for it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.helpers.hosts import Hosts
from tests.helpers.jobs import digests
from tests.helpers.ray_workers import stop_in_units, workers_below

from .conftest import Cluster, Jobs, n_records

pytestmark = pytest.mark.cluster

# After so many units the time of a typical one is known.
UNITS_BEFORE = 6
# Ray kills the processes of a job a moment after its driver has ended.
END_SECONDS = 30.0


@pytest.fixture(scope="module")
def cluster(module_hosts: Hosts) -> Cluster:
    return Cluster(module_hosts, (1, 1))


def test_units_of_a_stopped_node_are_made_by_another(cluster: Cluster, jobs: Jobs, tmp_path: Path) -> None:
    """Its worker is stopped in the middle of a unit, which it never ends."""
    head, slow = cluster.nodes
    output = tmp_path / "out"
    run = cluster.start(jobs.command("tokenize", output), head)
    run.wait_until(lambda: n_records(output) >= UNITS_BEFORE and cluster.have_loaded(2), "some units")
    stopped: set[int] = set()

    def stop() -> bool:
        stopped.update(stop_in_units(slow.node))
        return bool(stopped)

    run.wait_until(stop, "a unit of the slow node")
    assert n_records(output) < jobs.n_units("tokenize")
    status, told = run.end()
    assert status == 0, told
    assert "1 ran a second time on another machine" in told, told
    assert digests(output) == jobs.expected("tokenize")
    deadline = time.monotonic() + END_SECONDS
    while workers_below(head.node) or workers_below(slow.node):
        assert time.monotonic() < deadline, "workers are left"
        time.sleep(0.1)
    assert not list((output / "_codectok").rglob("tmp/*"))
