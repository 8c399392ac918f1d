"""Ctrl-C and SIGTERM to a driver that has joined a cluster: it ends soon, and leaves nothing in the cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import soundfile

from tests.helpers.audio import tone
from tests.helpers.clusters import free_port, ray_head
from tests.helpers.command_line import codectok
from tests.helpers.jobs import digests
from tests.helpers.ray_workers import workers_below

pytestmark = pytest.mark.cluster

RECORDINGS, SECONDS = 40, 10.0
WAIT_SECONDS = 120.0
INTERRUPTED = 130
# A user waits for a few; the machines of tests are slow.
END_SECONDS = 20.0


@dataclass(frozen=True)
class Cluster:
    """Addresses of a cluster: of its head, and of its server of Ray Client."""

    head: str
    client: str


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    port = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="head") as folder,
        ray_head(Path(folder), {"RAY_AUTH_MODE": "disabled"}, f"--ray-client-server-port={port}") as address,
    ):
        yield Cluster(address, f"ray://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "speech"
    folder.mkdir()
    for number in range(RECORDINGS):
        soundfile.write(folder / f"{number:02d}.flac", tone(SECONDS, 24_000, 200 + 20 * number, number), 24_000)
    return folder


def tokenize(recordings: Path, codec: Path, output: Path, *options: str) -> list[str]:
    command = ["tokenize", str(recordings), str(output), "--codec", str(codec), "--device", "cpu"]
    return [*command, "--part-seconds", str(SECONDS), *options]


def has_more_records(output: Path, before: int) -> bool:
    return records(output) > before


def records(output: Path) -> int:
    return len(list((output / "_codectok" / "records").glob("*.json")))


def test_interrupted_driver_leaves_nothing_in_the_cluster(
    cluster: Cluster, recordings: Path, codec_folder: Path, tmp_path: Path
) -> None:
    """And the next run resumes, to the same bytes in the end."""
    output = tmp_path / "tokens"
    for address, number in (
        (cluster.head, signal.SIGINT),
        (cluster.head, signal.SIGTERM),
        (cluster.client, signal.SIGINT),
        (cluster.client, signal.SIGTERM),
    ):
        before = records(output)
        command = [sys.executable, "-m", "codectok", *tokenize(recordings, codec_folder, output, "--address", address)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as driver:
            wait(partial(has_more_records, output, before), driver)
            assert workers_below(os.getpid())
            driver.send_signal(number)
            started = time.monotonic()
            text = driver.communicate(timeout=WAIT_SECONDS)[0]
            seconds = time.monotonic() - started
        assert driver.returncode == INTERRUPTED
        assert "Traceback" not in text
        assert seconds < END_SECONDS
        assert records(output) < RECORDINGS, "the job was too short for this test"
        wait(lambda: not workers_below(os.getpid()))
        assert not (output / "_codectok" / "tmp" / "whole").exists()
    assert codectok(*tokenize(recordings, codec_folder, output, "--engine", "local")).exit_code == 0
    assert codectok(*tokenize(recordings, codec_folder, tmp_path / "local", "--engine", "local")).exit_code == 0
    assert digests(output) == digests(tmp_path / "local")


def wait(happens: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not happens():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
