"""Nodes that are lost while jobs run: the other nodes make the units, and the bytes stay the same."""

from __future__ import annotations

import threading
import time

import pytest

from tests.helpers.hosts import Hosts, require_networks

from .conftest import Cluster, TwoJobs

pytestmark = pytest.mark.cluster

CUT_SECONDS = 30.0


@pytest.fixture(scope="module")
def three_nodes(module_hosts: Hosts) -> Cluster:
    return Cluster(module_hosts, (2, 2, 2))


@pytest.fixture
def cluster(three_nodes: Cluster) -> Cluster:
    three_nodes.heal()
    return three_nodes


def test_killed_node_does_not_change_outputs(cluster: Cluster, two_jobs: TwoJobs) -> None:
    two_jobs.start(cluster.nodes[1])
    two_jobs.wait_for_units()
    cluster.nodes[2].kill()
    two_jobs.assert_finished()


def test_cut_network_does_not_change_outputs(cluster: Cluster, two_jobs: TwoJobs) -> None:
    """Workers that are cut off continue to write to the shared disk."""
    require_networks()
    two_jobs.start(cluster.nodes[1])
    two_jobs.wait_for_units()
    cluster.nodes[2].set_link("down")
    timer = threading.Timer(CUT_SECONDS, cluster.nodes[2].set_link, ["up"])
    timer.start()
    started = time.monotonic()
    try:
        two_jobs.assert_finished()
    finally:
        timer.join()
    assert time.monotonic() - started < CUT_SECONDS + 90
