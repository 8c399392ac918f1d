"""Nodes that are lost while jobs run: the other nodes make the units, and the bytes stay the same."""

from __future__ import annotations

import threading

import pytest

from tests.helpers.hosts import Hosts, require_networks
from tests.helpers.ray_workers import continue_all

from .conftest import AllJobs, Cluster

pytestmark = pytest.mark.cluster

CUT_SECONDS = 30.0


@pytest.fixture(scope="module")
def three_nodes(module_hosts: Hosts) -> Cluster:
    """The head makes no units; each of all jobs has a worker on the third node."""
    return Cluster(module_hosts, (0, 1, 7))


@pytest.fixture
def cluster(three_nodes: Cluster) -> Cluster:
    three_nodes.heal()
    return three_nodes


def test_killed_node_does_not_change_outputs(cluster: Cluster, all_jobs: AllJobs) -> None:
    all_jobs.start(cluster.nodes[1])
    all_jobs.stop_in_units(cluster.nodes[2])
    cluster.nodes[2].kill()
    all_jobs.assert_finished()


def test_cut_network_does_not_change_outputs(cluster: Cluster, all_jobs: AllJobs) -> None:
    """Workers that are cut off continue to write to the shared disk."""
    require_networks()
    all_jobs.start(cluster.nodes[1])
    stopped = all_jobs.stop_in_units(cluster.nodes[2])
    cluster.nodes[2].set_link("down")
    continue_all(stopped)
    timer = threading.Timer(CUT_SECONDS, cluster.nodes[2].set_link, ["up"])
    timer.start()
    try:
        all_jobs.assert_finished()
    finally:
        timer.join()
