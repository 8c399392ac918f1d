"""Drivers that a cluster starts itself: `ray job submit -- codectok ...`, and `ray job stop`."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import soundfile
from ray.job_submission import JobStatus, JobSubmissionClient

from codectok.pipelines.engine.lock import held_locks
from codectok.storage import open_storage
from tests.helpers.audio import tone
from tests.helpers.clusters import free_port, ray_head
from tests.helpers.command_line import codectok
from tests.helpers.exports import write_parts
from tests.helpers.jobs import digests
from tests.helpers.killing import descendants
from tests.helpers.storage import store_environment, upload

pytestmark = pytest.mark.cluster

RECORDINGS, SECONDS = 60, 10.0
WAIT_SECONDS = 250.0


@pytest.fixture(scope="module")
def job_server() -> Iterator[str]:
    """Address of the server of jobs of a cluster, whose machines have no settings of a store."""
    pytest.importorskip("aiohttp_cors", reason="ray[default] is not installed")
    port, agent = free_port(), free_port()
    options = ("--include-dashboard=true", f"--dashboard-port={port}", f"--dashboard-agent-listen-port={agent}")
    with (
        tempfile.TemporaryDirectory(prefix="head") as folder,
        ray_head(Path(folder), {"RAY_AUTH_MODE": "disabled"}, *options),
    ):
        yield f"http://127.0.0.1:{port}"


def ray_job(server: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", arguments[0], "--address", server, *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_submitted_job_joins_its_cluster_with_its_environment(job_server: str, s3: str, tmp_path: Path) -> None:
    """The settings of a store that are given to the job reach the driver and the workers; its log comes back."""
    url = upload(write_parts(tmp_path / "tokens", 30), f"{s3}/submitted/tokens")
    command = ["export", "sequences", url, f"{s3}/submitted/out", "--offset", "400", "--eos", "0"]
    environment = json.dumps({"env_vars": store_environment()})
    log = ray_job(
        job_server, "submit", "--runtime-env-json", environment, "--", sys.executable, "-m", "codectok", *command
    )
    assert "Running on 1 worker." in log
    assert "s3://corpora/submitted/out/_codectok/report.html" in log
    local = tmp_path / "local"
    assert codectok(*command[:2], tmp_path / "tokens", local, *command[4:], "--engine", "local").exit_code == 0
    storage = open_storage(f"{s3}/submitted/out")
    parts = [name for name in storage.sizes() if "/" not in name]
    assert parts
    for name in parts:
        assert storage.read(name) == (local / name).read_bytes()


def test_stopped_job_leaves_nothing_in_the_way(job_server: str, codec_folder: Path, tmp_path: Path) -> None:
    recordings, output = tmp_path / "speech", tmp_path / "tokens"
    recordings.mkdir()
    for number in range(RECORDINGS):
        soundfile.write(recordings / f"{number:02d}.flac", tone(SECONDS, 24_000, 300, number), 24_000)
    command = ["tokenize", str(recordings), str(output), "--codec", str(codec_folder), "--device", "cpu"]
    command += ["--part-seconds", str(SECONDS)]
    driver = [sys.executable, "-m", "codectok", *command]
    jobs = JobSubmissionClient(job_server)
    job = jobs.submit_job(entrypoint=shlex.join(driver))
    wait(lambda: any((output / "_codectok" / "records").glob("*.json")))
    assert workers(output)
    jobs.stop_job(job)  # as `ray job stop` does, which needs seconds to start
    wait(lambda: jobs.get_job_status(job) == JobStatus.STOPPED and not workers(output))
    assert "Traceback" not in jobs.get_job_logs(job)
    assert not held_locks(open_storage(output))
    assert len(list((output / "_codectok" / "records").glob("*.json"))) < RECORDINGS
    assert codectok(*command, "--engine", "local").exit_code == 0
    assert codectok(*command[:2], tmp_path / "local", *command[3:], "--engine", "local").exit_code == 0
    assert digests(output) == digests(tmp_path / "local")
    assert not (output / "_codectok" / "tmp").exists()


def workers(output: Path) -> set[int]:
    """Processes of drivers and actors that work on `output`."""
    found = set()
    for process in descendants(1):
        try:
            command = Path(f"/proc/{process}/cmdline").read_bytes()
        except FileNotFoundError:
            continue
        if b"ray::Worker" in command or (os.fsencode(output) in command and b"codectok" in command):
            found.add(process)
    return found


def wait(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)
