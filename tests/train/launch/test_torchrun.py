"""Training on ranks started by torchrun."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from codectok.train.signals import LAUNCHER, terminate_with_parent
from tests.train.conftest import final_state, tiny_config

SECONDS = 300
# Random numbers differ between ranks, so there are none.
SETTINGS = ("codec.encoder.drop_path_rate=0.0", "log_interval=1", "checkpoint_interval=1000")


def start(*arguments: str, temporary: Path) -> subprocess.Popen[str]:
    """Start two ranks of `codectok train` with `temporary` as the folder for temporary files."""
    return subprocess.Popen(
        [sys.executable, "-m", "codectok", "train", *arguments, "--engine", "torchrun", "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)},
    )


def start_run(shards: Path, folder: Path, steps: int) -> subprocess.Popen[str]:
    """Start a run of `steps` steps into `folder/run`."""
    path, temporary = folder / "run.yaml", folder / "temporary"
    path.write_text(tiny_config(shards, folder / "run", *SETTINGS, steps=steps).model_dump_json())
    temporary.mkdir()
    return start(str(path), temporary=temporary)


def wait_for_a_step(launcher: subprocess.Popen[str]) -> None:
    assert launcher.stdout is not None
    assert any(line.startswith("step ") for line in launcher.stdout)


def test_unusable_data_is_reported_before_ranks_start(tmp_path: Path) -> None:
    launcher = start("nano", f"data.shards={tmp_path}", f"output={tmp_path}/run", temporary=tmp_path)
    _, errors = launcher.communicate(timeout=SECONDS)
    assert launcher.returncode == 2
    assert "holds no shards.json" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL])
def test_ranks_save_a_checkpoint_when_launcher_stops_or_dies(
    number: signal.Signals, shards: Path, tmp_path: Path
) -> None:
    launcher = start_run(shards, tmp_path, steps=300)
    wait_for_a_step(launcher)
    launcher.send_signal(number)
    output, _ = launcher.communicate(timeout=SECONDS)  # until the last of its ranks has ended
    assert launcher.returncode == (130 if number is signal.SIGUSR1 else -signal.SIGKILL)
    found = re.search(r"Stopped at step (\d+)\. Run the same command", output)
    assert found, output
    stopped = int(found[1])
    assert stopped < 300 and final_state(tmp_path / "run")["position"] == stopped * 4


@pytest.mark.parametrize(("launcher", "code"), [("parent", 0), ("another process", 128 + signal.SIGTERM)])
def test_rank_ends_if_its_launcher_died_before(launcher: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LAUNCHER, str(os.getpid() if launcher == "parent" else os.getppid()))
    rank = multiprocessing.get_context("fork").Process(target=terminate_with_parent)
    rank.start()
    rank.join()
    assert rank.exitcode == code


@pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")
def test_killed_rank_is_reported(shards: Path, tmp_path: Path) -> None:
    launcher = start_run(shards, tmp_path, steps=300)
    wait_for_a_step(launcher)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    ranks = [int(pid) for pid in children if b"codectok" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    _, errors = launcher.communicate(timeout=SECONDS)
    assert launcher.returncode == 1
    assert "Rank 1 was killed by SIGKILL" in errors


def test_stages_run_one_after_the_other_and_leave_no_temporary_files(shards: Path, tmp_path: Path) -> None:
    described = json.loads(tiny_config(shards, tmp_path, *SETTINGS, steps=2).model_dump_json(exclude={"output"}))
    path = tmp_path / "runs.yaml"
    path.write_text(json.dumps({**described, "output": str(tmp_path / "runs"), "stages": {"first": {}, "second": {}}}))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    launcher = start(str(path), "--log-dir", str(tmp_path / "log"), temporary=temporary)
    output, errors = launcher.communicate(timeout=SECONDS)
    assert launcher.returncode == 0, errors
    assert len(list((tmp_path / "log").glob("*.jsonl"))) == 2  # of each stage, and of the first rank
    left = [path.name for path in temporary.iterdir()]
    assert [name for name in left if not name.startswith("torchinductor")] == []  # torch's cache
    assert output.count("step       2/2") == 2  # only the first rank prints
    assert [final_state(tmp_path / "runs" / stage)["position"] for stage in ("first", "second")] == [2 * 4, 2 * 4]
