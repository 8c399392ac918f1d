"""Signals, kills and full disks: the same command again makes the output of one clean run, for each kind of job."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from codectok.pipelines.verify.output import verify_output
from codectok.storage import open_storage
from tests.helpers.jobs import digests, run, shard_command, shard_job, tokenize_command, tokenize_job

VERBS = ["shard", "tokenize"]
# Enough for some units, not for all.
SMALL_DISK = {"shard": "900k", "tokenize": "52k"}


@pytest.fixture(scope="module", params=VERBS)
def verb(request: pytest.FixtureRequest) -> str:
    return request.param


def make(verb: str, codec_folder: Path, corpus: Path, output: Path) -> None:
    run(shard_job() if verb == "shard" else tokenize_job(codec_folder), corpus, output)


@pytest.fixture(scope="module")
def clean(verb: str, codec_folder: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the output of one clean run."""
    folder = tmp_path_factory.mktemp("clean") / "out"
    make(verb, codec_folder, corpus, folder)
    return digests(folder)


def command(verb: str, codec_folder: Path, corpus: Path, output: Path, *options: str) -> list[str]:
    if verb == "shard":
        return shard_command(corpus, output, *options)
    return tokenize_command(codec_folder, corpus, output, *options)


def test_killed_driver_resumes(
    verb: str, codec_folder: Path, corpus: Path, tmp_path: Path, clean: dict[str, str]
) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.pipelines.engine.test_kills import make;"
        "make(sys.argv[1], *map(Path, sys.argv[2:]))"
    )
    arguments = [sys.executable, "-c", script, verb, str(codec_folder), str(corpus), str(tmp_path / "out")]
    pick = random.Random(0)
    kills = 0
    for _ in range(6):
        process = subprocess.Popen(arguments, cwd=Path(__file__).parents[3])
        locks = tmp_path / "out" / "_codectok" / "locks"
        while process.poll() is None and not locks.exists():
            time.sleep(0.01)
        time.sleep(pick.uniform(0, 0.4))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 2
    make(verb, codec_folder, corpus, tmp_path / "out")
    assert digests(tmp_path / "out") == clean


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_command_says_how_to_continue(number: signal.Signals, corpus: Path, tmp_path: Path) -> None:
    for copy in range(40):
        shutil.copytree(corpus, tmp_path / "in" / str(copy))
    arguments = shard_command(tmp_path / "in", tmp_path / "out", "--workers", "1")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    records = tmp_path / "out" / "_codectok" / "records"
    deadline = time.monotonic() + 120
    while not records.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Interrupted." in errors
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    temporary = tmp_path / "out" / "_codectok" / "tmp"
    assert not temporary.exists() or not any(temporary.iterdir())
    assert not (tmp_path / "out" / "shards.json").exists()


def workers_of(driver: int) -> list[int]:
    """Process ids of the Ray actors of this driver; other drivers may run on the machine."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(maxsplit=2) for line in listing.stdout.splitlines()]
    parents = {int(row[0]): int(row[1]) for row in rows}

    def ancestors(process: int) -> Iterator[int]:
        while process in parents:
            process = parents[process]
            yield process

    return [int(row[0]) for row in rows if "ray::Worker" in row[-1] and driver in ancestors(int(row[0]))]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_killed_drivers_and_workers_do_not_change_output(
    workers: int, verb: str, codec_folder: Path, corpus: Path, tmp_path: Path
) -> None:
    for copy in range(12):
        shutil.copytree(corpus, tmp_path / "in" / str(copy))
    make(verb, codec_folder, tmp_path / "in", tmp_path / "clean")
    expected = digests(tmp_path / "clean")
    pick = random.Random(workers)
    records = tmp_path / "out" / "_codectok" / "records"
    arguments = command(verb, codec_folder, tmp_path / "in", tmp_path / "out", "--workers", str(workers))
    for turn in range(6):
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        done = len(list(records.glob("*"))) if records.exists() else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
            if records.exists() and len(list(records.glob("*"))) > done:
                break
        time.sleep(pick.uniform(0, 0.3))
        if turn % 2:
            for actor in workers_of(process.pid)[:1]:
                subprocess.run(["kill", "-9", str(actor)], check=False)
            time.sleep(pick.uniform(0, 0.5))
        process.kill()
        process.wait()
    finished = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert digests(tmp_path / "out") == expected
    verify_output(open_storage(tmp_path / "out"))


def test_full_disk_is_reported_and_resumed(
    verb: str, codec_folder: Path, corpus: Path, tmp_path: Path, clean: dict[str, str]
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK[verb]}", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount a small file system")
    try:
        arguments = command(verb, codec_folder, corpus, small / "out", "--engine", "local", "--no-space-check")
        full = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert full.returncode == 1
        assert "No space left" in full.stderr
        assert "Traceback" not in full.stderr
        done = sorted(path.name for path in (small / "out").glob("*-0*"))
        assert 0 < len(done) < len([name for name in clean if "-0" in name and "/" not in name])
        for name in done:
            assert digests(small / "out")[name] == clean[name]
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        assert subprocess.run(arguments, capture_output=True, check=False).returncode == 0
        assert digests(small / "out") == clean
    finally:
        subprocess.run(["umount", str(small)], check=True)
