"""Training on ranks started by Ray."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from codectok import CodectokError, InputError
from codectok.monitoring.events import CheckpointWritten, Event, StepLogged
from codectok.shards import read_index
from codectok.storage import open_storage
from codectok.train import train
from codectok.train.launch import ray_train
from codectok.train.launch.ray_train import RayOptions, train_on_ray
from codectok.train.run.checkpoint import latest_checkpoint
from tests.helpers.modes import umask, wrong_modes
from tests.train.conftest import final_state, tiny_config, write_shards

# Random numbers differ between ranks; without them, ranks compute the same as one process.
DETERMINISTIC = ("codec.encoder.drop_path_rate=0.0", "checkpoint_interval=2")


@pytest.fixture(scope="module", autouse=True)
def ray_ends_here(ray_session: None) -> Iterator[None]:
    """Ray cannot shut down in a process that has run Ray Train and then forked, as loaders do in other tests."""
    yield
    ray.shutdown()


def losses(log: dict[int, float]) -> Callable[[int, dict[str, float]], None]:
    return lambda step, metrics: log.update({step: metrics["mel_1024"]})


def test_ray_ranks_equal_one_process_and_follow_umask(shards: Path, tmp_path: Path) -> None:
    alone: dict[int, float] = {}
    train(tiny_config(shards, tmp_path / "alone", *DETERMINISTIC), losses(alone))
    both: dict[int, float] = {}
    config = tiny_config(shards, tmp_path / "both", *DETERMINISTIC, "data.num_workers=1")
    events: list[Event] = []
    sink = SimpleNamespace(emit=events.append)
    with umask(0o007):
        report = train_on_ray(config, RayOptions(workers=2), losses(both), sink)
    assert [event.step for event in events if isinstance(event, StepLogged)] == [*both]
    assert [event.step for event in events if isinstance(event, CheckpointWritten)] == [2, 4, 6, 7]
    assert wrong_modes(tmp_path / "both", 0o007) == {}
    assert (report.ending, report.step) == ("finished", 7)
    assert report.codec == tmp_path / "both" / "codec"
    assert both.keys() == alone.keys()
    assert list(both.values()) == pytest.approx(list(alone.values()), rel=0.02)
    assert final_state(tmp_path / "both")["position"] == final_state(tmp_path / "alone")["position"] == 7 * 4


def ranks() -> list[int]:
    listing = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True)
    rows = (line.split(maxsplit=1) for line in listing.stdout.splitlines())
    return [int(pid) for pid, command in rows if "RayTrainWorker" in command]


@pytest.mark.slow
def test_killed_rank_is_retried_without_losing_samples(shards: Path, tmp_path: Path) -> None:
    """A rank is killed after the first checkpoint; all ranks start again from there, later on a single rank."""
    config = tiny_config(shards, tmp_path / "run", *DETERMINISTIC, "log_interval=1", steps=14)
    log: dict[int, float] = {}
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while latest_checkpoint(config.output / "checkpoints") is None and time.monotonic() < deadline:
            time.sleep(0.02)
        victim = ranks()[-1]
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)

    killer = threading.Thread(target=kill)
    killer.start()
    report = train_on_ray(config, RayOptions(workers=2, retries=1), losses(log))
    killer.join()
    assert len(killed) == 1
    assert (report.ending, report.step) == ("finished", 14)
    assert final_state(config.output)["position"] == 14 * 4
    more = tiny_config(shards, tmp_path / "run", *DETERMINISTIC, "log_interval=1", steps=17)
    assert train_on_ray(more, RayOptions(workers=1), losses(log)).step == 17
    assert train_on_ray(more, RayOptions(workers=1), losses(log)).ending == "already finished"
    alone: dict[int, float] = {}
    train(tiny_config(shards, tmp_path / "alone", *DETERMINISTIC, "log_interval=1", steps=17), losses(alone))
    assert log.keys() == alone.keys()
    # The same samples in the same order; only rounding differs.
    assert list(log.values()) == pytest.approx(list(alone.values()), rel=0.05)


@pytest.mark.slow
def test_fewer_ranks_become_all_ranks_once_there_are_places(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another program leaves a CPU while one of two ranks trains."""
    monkeypatch.setattr(ray_train, "GROWTH_SECONDS", 1.0)
    config = tiny_config(shards, tmp_path / "run", *DETERMINISTIC, "log_interval=1", steps=40)
    log: dict[int, float] = {}
    other_program: Any = ray.remote(num_cpus=1)(dict).remote()

    def leave() -> None:
        deadline = time.monotonic() + 120
        while latest_checkpoint(config.output / "checkpoints") is None and time.monotonic() < deadline:
            time.sleep(0.02)
        ray.kill(other_program)

    leaver = threading.Thread(target=leave)
    leaver.start()
    report = train_on_ray(config, RayOptions(workers=2, wait_seconds=0.0), losses(log))
    leaver.join()
    assert (report.ending, report.step) == ("finished", 40)
    assert "Training continues with 1 of 2 ranks" in caplog.text
    assert "There are places for more ranks" in caplog.text
    assert final_state(config.output)["position"] == 40 * 4
    alone: dict[int, float] = {}
    train(tiny_config(shards, tmp_path / "alone", *DETERMINISTIC, "log_interval=1", steps=40), losses(alone))
    assert log.keys() == alone.keys()
    assert list(log.values()) == pytest.approx(list(alone.values()), rel=0.05)


def test_run_errors_are_not_retried(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(CodectokError, match="Training diverged"):
        train_on_ray(
            tiny_config(shards, tmp_path / "run", "generator_optimizer.learning_rate=1e30"),
            RayOptions(workers=1),
            lambda step, metrics: None,
        )
    with pytest.raises(InputError, match="too few for 99 ranks"):
        train_on_ray(tiny_config(shards, tmp_path / "more"), RayOptions(workers=99), lambda step, metrics: None)


@pytest.mark.slow
def test_error_on_one_rank_ends_all_ranks(tmp_path: Path) -> None:
    """The rank that reads a damaged sample stops while the other waits for its gradients."""
    shards = write_shards(tmp_path / "shards", [40])
    tar = shards / "shard-000000.tar"
    offset = read_index(open_storage(shards), tar.name)["offset"][17].as_py()
    data = bytearray(tar.read_bytes())
    data[offset : offset + 4] = b"lost"
    tar.write_bytes(data)
    config = tiny_config(shards, tmp_path / "run", *DETERMINISTIC, "data.max_unreadable_in_a_row=1", steps=100)
    with pytest.raises(CodectokError, match="1 samples in a row"):
        train_on_ray(config, RayOptions(workers=2), lambda step, metrics: None)


@pytest.mark.slow
def test_interrupted_ray_ranks_save_a_checkpoint(shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        tiny_config(shards, tmp_path / "run", *DETERMINISTIC, "log_interval=1", steps=100_000).model_dump_json()
    )
    command = [sys.executable, "-m", "codectok", "train", str(path), "--engine", "ray"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert any(line.startswith("step ") for line in process.stdout)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Run the same command to resume" in output
    found = re.search(r"Stopped at step ([\d,]+)", output)
    assert found, output
    stopped = int(found[1].replace(",", ""))
    assert final_state(tmp_path / "run")["position"] == stopped * 4


def test_missing_gpu_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no GPU"):
        train_on_ray(tiny_config(shards, tmp_path / "run", "device=cuda"), RayOptions(), lambda step, metrics: None)
