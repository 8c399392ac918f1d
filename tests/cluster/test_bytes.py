"""Jobs on a cluster of several machines write the bytes that one machine writes."""

from __future__ import annotations

import pytest

from tests.helpers.hosts import Hosts

from .conftest import AllJobs, Cluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster(module_hosts: Hosts) -> Cluster:
    return Cluster(module_hosts, (3, 3, 2))


def test_cluster_writes_the_bytes_of_one_machine(cluster: Cluster, all_jobs: AllJobs) -> None:
    all_jobs.start(cluster.nodes[1])
    all_jobs.assert_finished()
