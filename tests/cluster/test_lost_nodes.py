"""Nodes that are lost while a job runs: the others make their units, and the bytes stay the same."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.helpers.hosts import Hosts, problem_of_namespaces
from tests.helpers.jobs import digests

from .conftest import Cluster, Jobs, n_records

pytestmark = pytest.mark.cluster

CUT_SECONDS = 30.0
VERBS = ["tokenize", "shard"]


@pytest.fixture(scope="module")
def three_nodes(module_hosts: Hosts) -> Cluster:
    return Cluster(module_hosts, 3)


@pytest.fixture
def cluster(three_nodes: Cluster) -> Cluster:
    three_nodes.heal()
    return three_nodes


@pytest.mark.parametrize("verb", VERBS)
def test_killed_node_does_not_change_output(verb: str, cluster: Cluster, jobs: Jobs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run = cluster.start(jobs.command(verb, output), cluster.nodes[1])
    run.wait_until(lambda: n_records(output) >= 2, "two units")
    cluster.nodes[2].kill()
    assert n_records(output) < jobs.n_units(verb)
    status, told = run.end()
    assert status == 0, told
    assert digests(output) == jobs.expected(verb)


@pytest.mark.parametrize("verb", VERBS)
def test_cut_network_does_not_change_output(verb: str, cluster: Cluster, jobs: Jobs, tmp_path: Path) -> None:
    """A worker that is cut off goes on writing to the shared disk."""
    if problem_of_namespaces():
        pytest.skip(f"the network cannot be cut: {problem_of_namespaces()}")
    output = tmp_path / "out"
    run = cluster.start(jobs.command(verb, output), cluster.nodes[1])
    run.wait_until(lambda: n_records(output) >= 2, "two units")
    cluster.nodes[2].set_link("down")
    assert n_records(output) < jobs.n_units(verb)
    timer = threading.Timer(CUT_SECONDS, cluster.nodes[2].set_link, ["up"])
    timer.start()
    started = time.monotonic()
    status, told = run.end()
    timer.join()
    assert status == 0, told
    assert time.monotonic() - started < CUT_SECONDS + 60
    assert digests(output) == jobs.expected(verb)
