"""Worker processes that read training data: signals, ends and errors."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
import torch

from codectok.errors import CodectokError, InputError
from codectok.train import SegmentLoader
from codectok.train.data import batches as batches_module
from codectok.train.data import loader as loader_module
from codectok.train.data.workers import start_worker
from codectok.train.parent import Parent, silence_without
from codectok.train.signals import STOP_SIGNALS
from tests.train.conftest import SAMPLE_RATE, damage, write_shards

from .test_loader import BATCH, batches, data_config, segment_reader

SECONDS_TO_END = 10.0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the sender of a signal")
def test_workers_ignore_stop_signals(shards: Path) -> None:
    """A batch system sends SIGTERM to all processes of a run, but the workers are needed until it has stopped."""
    config = data_config(shards=shards, num_workers=1)
    found = iter(SegmentLoader(segment_reader(config), config))
    next(found)
    (worker,) = multiprocessing.active_children()
    for number in STOP_SIGNALS:
        subprocess.run(["kill", f"-{number}", str(worker.pid)], check=True)
    assert [next(found).position for _ in range(6)] == [BATCH * n for n in range(2, 8)]
    assert worker.is_alive()


def test_workers_end_with_an_error(tmp_path: Path) -> None:
    """Workers end although the traceback still refers to the iterator."""
    config = data_config(shards=write_shards(tmp_path / "all", [8]), num_workers=2, max_unreadable_in_a_row=2)
    damage(tmp_path / "all", {f"all-{n}" for n in range(8)})
    others = multiprocessing.active_children()
    with pytest.raises(CodectokError, match="in a row") as found:
        batches(config, 1)
    assert found.tb is not None
    assert set(multiprocessing.active_children()) <= set(others)


@pytest.mark.skipif(sys.platform != "linux", reason="only there workers are forked")
def test_worker_that_dies_while_it_ends_is_no_error(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die_at_exit(_: int) -> None:
        multiprocessing.util.Finalize(None, os.kill, (os.getpid(), signal.SIGKILL), exitpriority=1000)

    monkeypatch.setattr(loader_module, "start_worker", die_at_exit)
    for _ in range(5):  # torch may notice the deaths too late to complain
        config = data_config(shards=shards, num_workers=2)
        with closing(iter(SegmentLoader(segment_reader(config), config))) as found:
            next(found)


@pytest.mark.skipif(sys.platform != "linux", reason="only there workers are forked")
def test_worker_that_hangs_is_killed(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers ignore the signal by which torch ends those that do not end by themselves."""

    def hang(number: int) -> None:
        start_worker(number)
        if number == 1:
            time.sleep(1000)

    monkeypatch.setattr(loader_module, "start_worker", hang)
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.5)
    others = multiprocessing.active_children()
    config = data_config(shards=shards, num_workers=2)
    with closing(iter(SegmentLoader(segment_reader(config), config))) as found:
        next(found)
    assert set(multiprocessing.active_children()) <= set(others)


READS_AND_ENDS = """
import multiprocessing, sys
from codectok.train import DataConfig, SegmentLoader, SegmentReader

multiprocessing.set_start_method(sys.argv[3])
config = DataConfig(shards=sys.argv[1], batch_size=4, num_workers=2)
batches = iter(SegmentLoader(SegmentReader(config, int(sys.argv[2]), 900, seed=0), config))
for _ in range(6):
    next(batches)
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_exit_does_not_wait_for_workers(method: str, shards: Path) -> None:
    """On exit, multiprocessing terminates and joins the workers while their batches are still referenced."""
    command = [sys.executable, "-c", READS_AND_ENDS, str(shards), str(SAMPLE_RATE), method]
    assert subprocess.run(command, check=False, timeout=100).returncode == 0


@pytest.mark.parametrize("tensor", ["waveforms", "mask"])
def test_shared_memory_error_is_one_sentence(tensor: str, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch raises this error, or, while a batch is being sent, loses it and leaves the program waiting."""

    def refuse(*_: object) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_0>: Success (0)")

    if tensor == "waveforms":
        monkeypatch.setattr(batches_module, "default_collate", refuse)
    else:
        monkeypatch.setattr(batches_module, "default_collate", torch.stack)
        monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    with pytest.raises(InputError, match="shared memory"):
        batches(data_config(shards=shards, num_workers=1), 1)


# Forks a driver for each moment, which is killed at that moment; prints their process ids.
KILLED_DRIVERS = """
import multiprocessing, os, signal, sys, time
from multiprocessing import connection
from codectok.train import DataConfig, SegmentLoader, SegmentReader

shards, rate, folder, method, *moments = sys.argv[1:]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def drive(moment):
    batch_size = 5_000 if moment == "writing" else 4
    config = DataConfig(shards=shards, batch_size=batch_size, num_workers=2)
    if moment == "start":
        os.register_at_fork(after_in_parent=die)
    if moment == "second start":
        forks = iter([lambda: None, die])
        os.register_at_fork(after_in_parent=lambda: next(forks)())
    if moment == "connected":
        connection.answer_challenge = die
    if moment == "receiving":
        multiprocessing.reduction.recv_handle = die
    batches = iter(SegmentLoader(SegmentReader(config, int(rate), 1, seed=0), config))
    next(batches)
    time.sleep(2 if moment == "writing" else 0.5)
    die()

multiprocessing.set_start_method(method)
drivers = {}
for moment in moments:
    driver = os.fork()
    if driver == 0:
        os.setsid()
        os.dup2(os.open(f"{folder}/{moment}", os.O_WRONLY | os.O_CREAT), 2)
        drive(moment)
    drivers[driver] = moment
ended = dict(os.wait() for _ in moments)
assert set(ended.values()) == {signal.SIGKILL}, {drivers[driver]: status for driver, status in ended.items()}
with open(f"{folder}/drivers", "w") as file:
    print(*drivers, file=file)
"""


def processes_of_session(session: int) -> set[int]:
    """Processes of a session that are not zombies."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.add(int(folder.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers do not notice the death of their parent")
@pytest.mark.parametrize(
    ("method", "moments"),
    [
        ("fork", ["start", "second start", "waiting", "connected", "receiving", "writing"]),
        pytest.param("forkserver", ["waiting", "connected"], marks=pytest.mark.slow),
    ],
)
def test_workers_of_a_killed_driver_end_silently(method: str, moments: list[str], shards: Path, tmp_path: Path) -> None:
    """Killed while workers start, wait, write to a full pipe, or hand over a tensor."""
    command = [sys.executable, "-c", KILLED_DRIVERS, str(shards), str(SAMPLE_RATE), str(tmp_path), method, *moments]
    subprocess.run(command, check=True, timeout=100)
    drivers = [int(word) for word in (tmp_path / "drivers").read_text().split()]
    deadline = time.monotonic() + SECONDS_TO_END
    while left := set().union(*(processes_of_session(driver) for driver in drivers)):
        if time.monotonic() > deadline:
            for process in left:
                os.kill(process, signal.SIGKILL)
            pytest.fail("workers still run")
        time.sleep(0.1)
    for moment in moments:
        told = (tmp_path / moment).read_text()
        # The process that counts the semaphores of a fork server is Python's.
        assert told == "" if method == "fork" else "Traceback" not in told, (moment, told)


def _tell(file: Path) -> None:
    with file.open("w") as sys.stderr:
        silence_without(Parent())
        sys.stderr.write("wrong\n")
        sys.stderr.flush()
        assert sys.stderr.fileno() > 2


@pytest.mark.skipif(sys.platform != "linux", reason="only there workers are silenced")
def test_worker_writes_errors_while_its_parent_runs(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_tell, args=(tmp_path / "error",))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "error").read_text() == "wrong\n"
