"""A node that joins late is used by all jobs, and the bytes stay the same."""

from __future__ import annotations

import pytest

from tests.helpers.hosts import Hosts
from tests.helpers.ray_workers import continue_all, stop_in_units

from .conftest import AllJobs, Cluster

pytestmark = pytest.mark.cluster


@pytest.fixture
def cluster(hosts: Hosts) -> Cluster:
    """The head makes no units."""
    return Cluster(hosts, (0, 1))


def test_late_node_is_used_by_all_jobs(cluster: Cluster, all_jobs: AllJobs) -> None:
    """The only worker that has begun before is stopped until the late node has made a unit of each job."""
    all_jobs.start(cluster.nodes[1])
    stopped: set[int] = set()

    def stop() -> bool:
        stopped.update(stop_in_units(cluster.nodes[1].node) if sum(all_jobs.finished().values()) else [])
        return bool(stopped)

    all_jobs.wait_until(stop, "a unit")
    cluster.add(7)
    continue_all(stopped | all_jobs.stop_in_units(cluster.nodes[2]))
    all_jobs.assert_finished()
