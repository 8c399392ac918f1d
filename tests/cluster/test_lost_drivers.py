"""Lost drivers and heads: the command ends with one sentence, and the same command resumes to the same bytes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.helpers.hosts import Hosts, require_networks
from tests.helpers.jobs import digests
from tests.helpers.ray_workers import continue_all

from .conftest import AllJobs, Cluster, Jobs, n_records

pytestmark = pytest.mark.cluster

# Ray itself would end the driver after a minute, without a sentence.
NOTICE_SECONDS = 59.0
# A driver with this waits longer for its head.
PATIENT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}


@pytest.fixture(scope="module")
def two_nodes(module_hosts: Hosts) -> Cluster:
    """The second node is for drivers: units run on the head alone, so that none ends after the head is lost."""
    return Cluster(module_hosts, (8, 0))


@pytest.fixture
def cluster(two_nodes: Cluster) -> Cluster:
    if not two_nodes.nodes[0].runs_node():
        two_nodes.restart()
    two_nodes.heal()
    return two_nodes


def test_killed_drivers_resume_on_another_node(cluster: Cluster, all_jobs: AllJobs) -> None:
    all_jobs.start(cluster.nodes[1])
    stopped = all_jobs.stop_in_units(cluster.nodes[0])
    all_jobs.kill()
    continue_all(stopped)
    all_jobs.start(cluster.nodes[0])
    all_jobs.assert_finished()


def test_lost_node_of_the_driver_is_told(cluster: Cluster, jobs: Jobs, tmp_path: Path) -> None:
    """The driver lives on without the node that it belongs to."""
    require_networks()
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


def test_lost_head_is_told_and_the_job_resumes_on_a_new_cluster(cluster: Cluster, jobs: Jobs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run = cluster.start(jobs.command("evaluate", output), cluster.nodes[1])
    run.wait_until(lambda: n_records(output) >= 1, "a unit")
    cluster.nodes[0].kill()
    lost = time.monotonic()
    status, told = run.end()
    assert_one_sentence(status, told, "The head of the Ray cluster at", "has not answered for")
    assert time.monotonic() - lost < NOTICE_SECONDS
    cluster.restart()
    status, told = cluster.start(jobs.command("evaluate", output), cluster.nodes[1]).end()
    assert status == 0, told
    assert digests(output) == jobs.expected("evaluate")


def test_head_that_was_started_again_is_told_and_all_jobs_resume(cluster: Cluster, all_jobs: AllJobs) -> None:
    """Ray would let the driver wait forever for actors that belong to another cluster."""
    require_networks()
    all_jobs.start(cluster.nodes[1], **PATIENT)
    all_jobs.stop_in_units(cluster.nodes[0])
    cluster.nodes[0].kill()
    cluster.start_head()
    for status, told in all_jobs.end(NOTICE_SECONDS):
        assert_one_sentence(status, told)
        # The node of the driver ends itself when it meets another head; either may be noticed first.
        assert "was started again" in told or "The Ray node of this machine has died" in told, told
    cluster.nodes[1].kill()  # it may not have noticed yet
    cluster.heal()
    all_jobs.start(cluster.nodes[1])
    all_jobs.assert_finished()


def assert_one_sentence(status: int, told: str, *parts: str) -> None:
    """Assert that a command has failed with one sentence, without a stack trace or logs of Ray."""
    error = told.partition("Error: ")[2]
    assert status == 1, told
    assert told.count("Error: ") == 1, told
    assert "run the same command again to continue" in error, told
    for noise in ("Traceback", "rpc_client", "(raylet)"):
        assert noise not in told, told
    for part in parts:
        assert part in error, told
