"""A job on a cluster of several machines writes the bytes that one machine writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.hosts import Hosts
from tests.helpers.jobs import digests

from .conftest import Cluster, Jobs

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster(module_hosts: Hosts) -> Cluster:
    return Cluster(module_hosts, (1, 1, 1))


@pytest.mark.parametrize("verb", ["shard", "tokenize", "export", "evaluate"])
def test_cluster_writes_the_bytes_of_one_machine(verb: str, cluster: Cluster, jobs: Jobs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    status, told = cluster.start(jobs.command(verb, output), cluster.nodes[1]).end()
    assert status == 0, told
    assert digests(output) == jobs.expected(verb)
