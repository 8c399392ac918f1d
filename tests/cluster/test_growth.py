"""Clusters that grow and shrink during a job: machines that join are used, lost GPUs are replaced."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import soundfile

from codectok import Codec
from codectok.audio.ffmpeg.decoding import is_installed
from tests.cluster.growing_job import SHARD_SECONDS
from tests.helpers.audio import tone
from tests.helpers.clusters import free_port, ray_head, ray_node
from tests.helpers.jobs import digests, run, shard_job

pytestmark = pytest.mark.cluster

OPEN = {"RAY_AUTH_MODE": "disabled"}
UNITS = 12
WAIT_SECONDS = 150.0
# Starts one more machine at most, as a process.
AUTOSCALER: dict[str, Any] = {
    "cluster_name": "processes",
    "max_workers": 1,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 5,
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 1},
    },
    "head_node": {},
    "worker_nodes": {},
    "auth": {},
    "cluster_synced_files": [],
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "speech"
    folder.mkdir()
    for number in range(UNITS):
        soundfile.write(folder / f"{number:02d}.flac", tone(SHARD_SECONDS, 24_000, 200 + 20 * number, number), 24_000)
    return folder


@pytest.fixture(scope="module")
def expected(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("expected") / "out"
    assert run(shard_job(shard_seconds=SHARD_SECONDS), recordings, folder).summary.units == UNITS
    return digests(folder)


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    """Folder with a file for each node that has made a unit."""
    (tmp_path / "nodes").mkdir()
    return tmp_path / "nodes"


@contextmanager
def job(
    address: str,
    recordings: Path,
    output: Path,
    nodes: Path,
    seconds: float,
    kind: str = "plain",
    told: list[str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Run `growing_job`, and check that it succeeds at the end of the context; `told` receives its output."""
    command = [
        sys.executable,
        "-m",
        "tests.cluster.growing_job",
        address,
        *map(str, (recordings, output, nodes, seconds)),
    ]
    environment = {**os.environ, **OPEN}
    process = subprocess.Popen(
        [*command, kind], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
        output_text, _ = process.communicate(timeout=2 * WAIT_SECONDS)
        assert process.returncode == 0, output_text
        if told is not None:
            told.append(output_text)
    finally:
        process.kill()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[Any]) -> float:
    """Wait for `condition`, and return the seconds."""
    started = time.monotonic()
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() - started < WAIT_SECONDS
        time.sleep(0.2)
    return time.monotonic() - started


def test_machine_that_joins_late_is_used(
    recordings: Path, expected: dict[str, str], nodes: Path, tmp_path: Path
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="head") as folder,
        ray_head(Path(folder), OPEN) as address,
        job(address, recordings, tmp_path / "out", nodes, seconds=8.0) as process,
    ):
        wait_until(lambda: len(list(nodes.iterdir())) == 1, process)
        with ray_node(address, Path(folder), OPEN):
            assert wait_until(lambda: len(list(nodes.iterdir())) == 2, process) < 60.0
            process.wait(WAIT_SECONDS)
    assert digests(tmp_path / "out") == expected


def test_late_machine_with_other_programs_is_named_and_not_used(
    recordings: Path, expected: dict[str, str], nodes: Path, tmp_path: Path
) -> None:
    programs = str(Path(sys.executable).parent)
    if not is_installed() or shutil.which("ffmpeg", path=programs):
        pytest.skip("there is no ffmpeg that could be hidden from a machine")
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "imageio_ffmpeg.py").write_text("raise ImportError('hidden')\n")
    paths = [str(tmp_path / "without"), *sys.path]
    other = {**OPEN, "PATH": programs, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    told: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="head") as folder,
        ray_head(Path(folder), OPEN) as address,
        job(address, recordings, tmp_path / "out", nodes, seconds=5.0, told=told) as process,
    ):
        wait_until(lambda: len(list(nodes.iterdir())) == 1, process)
        with ray_node(address, Path(folder), other):
            process.wait(WAIT_SECONDS)
    assert len(list(nodes.iterdir())) == 1
    assert told[0].count("this machine has an ffmpeg and it has none") == 1
    assert digests(tmp_path / "out") == expected


def test_autoscaler_starts_machines_for_the_units_that_wait(
    recordings: Path, expected: dict[str, str], nodes: Path, tmp_path: Path
) -> None:
    """The autoscaler of Ray, whose machines are processes."""
    with tempfile.TemporaryDirectory(prefix="head") as folder:
        port = free_port()
        provider = {**AUTOSCALER["provider"], "gcs_address": f"127.0.0.1:{port}"}
        (Path(folder) / "autoscaler.json").write_text(json.dumps({**AUTOSCALER, "provider": provider}))
        environment = {**OPEN, "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
        with (
            ray_head(Path(folder), environment, f"--autoscaling-config={folder}/autoscaler.json", port=port) as address,
            job(address, recordings, tmp_path / "out", nodes, seconds=8.0) as process,
        ):
            wait_until(lambda: len(list(nodes.iterdir())) == 2, process)
            process.wait(WAIT_SECONDS)
    assert digests(tmp_path / "out") == expected


def test_first_gpu_of_a_cluster_is_waited_for(recordings: Path, tmp_path: Path) -> None:
    """A machine with a GPU joins after the command has asked for one; the GPU is a name only, which torch refuses."""
    Codec.from_config("nano").save_pretrained(tmp_path / "codec")
    command = [sys.executable, "-m", "codectok", "tokenize", str(recordings), str(tmp_path / "out"), "--device=cuda"]
    with (
        tempfile.TemporaryDirectory(prefix="head") as folder,
        ray_head(Path(folder), OPEN) as address,
        (tmp_path / "told").open("w") as told,
        subprocess.Popen(
            [*command, f"--codec={tmp_path / 'codec'}", f"--address={address}"],
            env={**os.environ, **OPEN, "CUDA_VISIBLE_DEVICES": ""},
            stdout=told,
            stderr=told,
        ) as process,
    ):
        note = "Waiting for a GPU of the Ray cluster: it has no machine with a GPU yet."
        try:
            wait_until(lambda: note in (tmp_path / "told").read_text(), process)
            with ray_node(address, Path(folder), OPEN, "--num-cpus=1", "--num-gpus=1"):
                assert process.wait(WAIT_SECONDS) == 1
        finally:
            process.kill()
    assert "The Ray cluster has a GPU that torch cannot use there" in " ".join((tmp_path / "told").read_text().split())


def test_lost_gpu_is_waited_for_and_replaced(
    recordings: Path, expected: dict[str, str], nodes: Path, tmp_path: Path
) -> None:
    """The only machine with a GPU is lost, and another one joins; the GPUs are names only."""

    def served_by() -> set[str]:
        return {path.name.partition("-")[2] for path in nodes.iterdir()}

    with (
        tempfile.TemporaryDirectory(prefix="head") as folder,
        ray_head(Path(folder), OPEN) as address,
        ray_node(address, Path(folder), OPEN, "--num-cpus=2", "--num-gpus=1") as node,
        job(address, recordings, tmp_path / "out", nodes, seconds=4.0, kind="served") as process,
    ):
        wait_until(lambda: len(served_by()) == 1, process)
        node.kill()
        with ray_node(address, Path(folder), OPEN, "--num-cpus=2", "--num-gpus=1"):
            wait_until(lambda: len(served_by()) == 2, process)
            process.wait(WAIT_SECONDS)
    assert digests(tmp_path / "out") == expected
