"""Training on ranks that Ray starts."""

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

import pytest
import ray

from codectok import CodectokError, InputError
from codectok.shards import read_index
from codectok.storage import open_storage
from codectok.train.launch.launch import run_training
from codectok.train.launch.ray_train import RayOptions, run_on_ray
from codectok.train.run.checkpoint import latest_checkpoint
from tests.train.conftest import final_state, tiny_config, write_shards

# Chance differs from rank to rank; without it ranks compute what one process does.
NO_CHANCE = ("codec.encoder.drop_path_rate=0.0", "checkpoint_interval=2")


@pytest.fixture(scope="module", autouse=True)
def ray_ends_here(ray_session: None) -> Iterator[None]:
    """Ray cannot shut down any more once a process has run Ray Train and then forked, as loaders do in other tests."""
    yield
    ray.shutdown()


def losses(log: dict[int, float]) -> Callable[[int, dict[str, float]], None]:
    return lambda step, scalars: log.update({step: scalars["mel_1024"]})


def test_ranks_on_ray_do_what_one_process_does(shards: Path, tmp_path: Path) -> None:
    alone: dict[int, float] = {}
    run_training(tiny_config(shards, tmp_path / "alone", *NO_CHANCE), losses(alone))
    both: dict[int, float] = {}
    config = tiny_config(shards, tmp_path / "both", *NO_CHANCE, "data.num_workers=1")
    report = run_on_ray(config, RayOptions(workers=2), losses(both))
    assert (report.ending, report.step) == ("finished", 7)
    assert report.codec == tmp_path / "both" / "codec"
    assert both.keys() == alone.keys()
    assert list(both.values()) == pytest.approx(list(alone.values()), rel=0.02)
    assert final_state(tmp_path / "both")["position"] == final_state(tmp_path / "alone")["position"] == 7 * 4
    assert run_on_ray(config, RayOptions(workers=1), losses(both)).ending == "already finished"


def ranks() -> list[int]:
    listing = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True)
    rows = (line.split(maxsplit=1) for line in listing.stdout.splitlines())
    return [int(pid) for pid, command in rows if "RayTrainWorker" in command]


@pytest.mark.slow
def test_a_rank_that_is_killed_in_the_middle_costs_no_sample(shards: Path, tmp_path: Path) -> None:
    """After the first checkpoint a rank is killed; all start again from there, and then on one rank."""
    config = tiny_config(shards, tmp_path / "run", *NO_CHANCE, "log_interval=1", steps=14)
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
    report = run_on_ray(config, RayOptions(workers=2, retries=1), losses(log))
    killer.join()
    assert len(killed) == 1
    assert (report.ending, report.step) == ("finished", 14)
    assert final_state(config.output)["position"] == 14 * 4
    more = tiny_config(shards, tmp_path / "run", *NO_CHANCE, "log_interval=1", steps=17)
    assert run_on_ray(more, RayOptions(workers=1), losses(log)).step == 17
    alone: dict[int, float] = {}
    run_training(tiny_config(shards, tmp_path / "alone", *NO_CHANCE, "log_interval=1", steps=17), losses(alone))
    assert log.keys() == alone.keys()
    # The same samples in the same order; their sums are rounded in another one.
    assert list(log.values()) == pytest.approx(list(alone.values()), rel=0.05)


def test_what_is_the_runs_own_fault_is_not_tried_again(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(CodectokError, match="Training diverged"):
        run_on_ray(
            tiny_config(shards, tmp_path / "run", "generator_optimizer.learning_rate=1e30"),
            RayOptions(workers=1),
            lambda step, scalars: None,
        )
    with pytest.raises(InputError, match="too few for 99 ranks"):
        run_on_ray(tiny_config(shards, tmp_path / "more"), RayOptions(workers=99), lambda step, scalars: None)


@pytest.mark.slow
def test_an_error_on_one_rank_ends_them_all_with_its_message(tmp_path: Path) -> None:
    """One sample is damaged: the rank that comes upon it stops, while the other waits for its gradients."""
    shards = write_shards(tmp_path / "shards", [40])
    tar = shards / "shard-000000.tar"
    offset = read_index(open_storage(shards), tar.name)["offset"][17].as_py()
    data = bytearray(tar.read_bytes())
    data[offset : offset + 4] = b"lost"
    tar.write_bytes(data)
    config = tiny_config(shards, tmp_path / "run", *NO_CHANCE, "data.max_unreadable_in_a_row=1", steps=100)
    with pytest.raises(CodectokError, match="1 samples in a row could not be used"):
        run_on_ray(config, RayOptions(workers=2), lambda step, scalars: None)


@pytest.mark.slow
def test_interrupted_ranks_stop_with_a_checkpoint(shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        tiny_config(shards, tmp_path / "run", *NO_CHANCE, "log_interval=1", steps=100_000).model_dump_json()
    )
    command = [sys.executable, "-m", "codectok", "train", str(path), "--engine", "ray"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert any(line.startswith("step ") for line in process.stdout)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "the same command goes on from there" in output
    stopped = int(re.search(r"Stopped at step ([\d,]+)", output)[1].replace(",", ""))
    assert final_state(tmp_path / "run")["position"] == stopped * 4


def test_a_gpu_that_is_not_there_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cluster has no GPU"):
        run_on_ray(tiny_config(shards, tmp_path / "run", "device=cuda"), RayOptions(), lambda step, scalars: None)
