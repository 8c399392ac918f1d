"""Training on several machines: a lost one costs no samples, and the others continue without it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from codectok.train import train
from codectok.train.report.events import read_events
from codectok.train.run.checkpoint import latest_checkpoint, saved_steps
from codectok.train.run.metrics_log import TENSORBOARD_FOLDER
from tests.helpers.hosts import Host, Hosts
from tests.train.conftest import final_state, shards, tiny_config

from .conftest import Cluster, Run

__all__ = ["shards"]  # a fixture

pytestmark = pytest.mark.cluster

STEPS = 60
# Random numbers differ between ranks; without them, ranks compute the same as one process.
SETTINGS = ("codec.encoder.drop_path_rate=0.0", "checkpoint_interval=3", "log_interval=1", "data.num_workers=1")


@pytest.fixture(scope="module")
def two_nodes(module_hosts: Hosts) -> Cluster:
    return Cluster(module_hosts, (1, 1))


@pytest.fixture
def cluster(two_nodes: Cluster) -> Cluster:
    two_nodes.heal()
    return two_nodes


@pytest.fixture(scope="module")
def expected(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """Losses of a run in one process."""
    output = tmp_path_factory.mktemp("alone") / "run"
    found: dict[int, float] = {}
    config = tiny_config(shards, output, *SETTINGS, steps=STEPS)
    train(config, lambda step, metrics: found.update({step: metrics["mel_1024"]}))
    return found


def start(cluster: Cluster, host: Host, shards: Path, folder: Path, *options: str) -> tuple[Run, Path]:
    """Start training on two ranks; return the run and its output."""
    config = tiny_config(shards, folder / "run", *SETTINGS, steps=STEPS)
    (folder / "run.json").write_text(config.model_dump_json())
    command = [sys.executable, "-m", "codectok", "train", str(folder / "run.json"), "--engine=ray", "--workers=2"]
    run = cluster.start([*command, *options], host)
    run.wait_until(lambda: latest_checkpoint(config.output / "checkpoints") is not None, "a checkpoint")
    return run, config.output


def lose_node(cluster: Cluster, output: Path) -> None:
    """Lose the second node long before the end of the run."""
    cluster.nodes[1].kill()
    assert saved_steps(output / "checkpoints")[-1] < STEPS / 2


def assert_same_run(output: Path, expected: dict[int, float]) -> None:
    """Assert that a run has seen the samples of `expected` in the same order; only rounding differs."""
    points = read_events(output / TENSORBOARD_FOLDER).scalars["mel_1024"]
    losses = {round(step): value for step, value in points}
    assert final_state(output)["position"] == STEPS * 4
    assert losses.keys() == expected.keys()
    assert list(losses.values()) == pytest.approx([expected[step] for step in losses], rel=0.05)


def test_training_goes_on_without_a_lost_machine(
    cluster: Cluster, shards: Path, expected: dict[int, float], tmp_path: Path
) -> None:
    run, output = start(cluster, cluster.nodes[0], shards, tmp_path, "--wait-minutes=0.1")
    lose_node(cluster, output)
    status, told = run.end()
    assert status == 0, told
    assert "A rank has died; all are started again from the last checkpoint" in told
    assert "Training waits for places for 2 ranks" in told
    assert "Training continues with 1 of 2 ranks" in told
    assert "Traceback" not in told
    assert_same_run(output, expected)


def test_training_waits_for_a_machine_that_comes_back(
    cluster: Cluster, shards: Path, expected: dict[int, float], tmp_path: Path
) -> None:
    run, output = start(cluster, cluster.nodes[0], shards, tmp_path, "--min-workers=2")
    lose_node(cluster, output)
    cluster.heal()
    status, told = run.end()
    assert status == 0, told
    assert "A rank has died; all are started again from the last checkpoint" in told
    assert "Training continues with" not in told
    assert_same_run(output, expected)
