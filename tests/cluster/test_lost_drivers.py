"""Drivers and heads that are lost: the command ends with one sentence, and the same command resumes to the same bytes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.helpers.hosts import Hosts
from tests.helpers.jobs import digests

from .conftest import Cluster, Jobs, n_records

pytestmark = pytest.mark.cluster

# Ray itself would end the driver after a minute, without a sentence.
NOTICE_SECONDS = 59.0
VERBS = ["tokenize", "shard"]


@pytest.fixture(scope="module")
def cluster(module_hosts: Hosts) -> Cluster:
    return Cluster(module_hosts, 2)


@pytest.mark.parametrize("verb", VERBS)
def test_killed_driver_resumes_on_another_node(verb: str, cluster: Cluster, jobs: Jobs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run = cluster.start(jobs.command(verb, output), cluster.nodes[1])
    run.wait_until(lambda: n_records(output) >= 2, "two units")
    run.kill()
    done = n_records(output)
    assert done < jobs.n_units(verb)
    status, told = cluster.start(jobs.command(verb, output), cluster.nodes[0]).end()
    assert status == 0, told
    assert digests(output) == jobs.expected(verb)


def test_lost_head_is_told_and_the_job_resumes(hosts: Hosts, jobs: Jobs, tmp_path: Path) -> None:
    """First the head stays away, then another one starts at its address."""
    cluster = Cluster(hosts, 2)
    output = tmp_path / "out"
    run = cluster.start(jobs.command("tokenize", output), cluster.nodes[1])
    run.wait_until(lambda: n_records(output) >= 1, "a unit")
    cluster.nodes[0].kill()
    lost = time.monotonic()
    status, told = run.end()
    assert time.monotonic() - lost < NOTICE_SECONDS
    assert_one_sentence(status, told, "The head of the Ray cluster at", "has not answered for")
    assert n_records(output) < jobs.n_units("tokenize")

    cluster.restart()
    run = cluster.start(jobs.command("tokenize", output), cluster.nodes[1])
    before = n_records(output)
    run.wait_until(lambda: n_records(output) > before, "another unit")
    cluster.nodes[0].kill()
    cluster.start_head()
    started = time.monotonic()
    status, told = run.end()
    assert time.monotonic() - started < NOTICE_SECONDS
    assert_one_sentence(status, told, "was started again")

    cluster.restart()
    status, told = cluster.start(jobs.command("tokenize", output), cluster.nodes[1]).end()
    assert status == 0, told
    assert digests(output) == jobs.expected("tokenize")


def test_lost_node_of_the_driver_is_told(cluster: Cluster, jobs: Jobs, tmp_path: Path) -> None:
    """The driver lives on without the node that it belongs to."""
    output = tmp_path / "out"
    run = cluster.start(jobs.command("shard", output), cluster.nodes[1])
    run.wait_until(lambda: n_records(output) >= 1, "a unit")
    cluster.nodes[1].kill_node()
    status, told = run.end(NOTICE_SECONDS)
    assert_one_sentence(status, told, "The Ray node of this machine has died")
    cluster.heal()
    status, told = cluster.start(jobs.command("shard", output), cluster.nodes[1]).end()
    assert status == 0, told
    assert digests(output) == jobs.expected("shard")


def assert_one_sentence(status: int, told: str, *parts: str) -> None:
    """Assert that a command has failed with one sentence, without a stack trace or logs of Ray."""
    error = told.partition("Error: ")[2]
    assert status == 1, told
    assert told.count("Error: ") == 1, told
    assert "run the same command again to continue" in error, told
    assert "Traceback" not in told, told
    assert "rpc_client" not in told, told
    assert "(raylet)" not in told, told
    for part in parts:
        assert part in error, told
