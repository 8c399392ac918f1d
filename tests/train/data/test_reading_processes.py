"""Worker processes that read training data: signals, ends and errors."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from codectok.errors import InputError
from codectok.train import SegmentLoader
from codectok.train.data import batches as batches_module
from codectok.train.signals import STOP_SIGNALS
from tests.train.conftest import SAMPLE_RATE

from .test_loader import BATCH, batches, data_config, segment_reader


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


KILLED_WHILE_IT_READS = """
import multiprocessing, os, signal, sys, time
from codectok.train import DataConfig, SegmentLoader, SegmentReader

config = DataConfig(shards=sys.argv[1], batch_size=10_000, num_workers=2)
batches = iter(SegmentLoader(SegmentReader(config, int(sys.argv[2]), 1, seed=0), config))
next(batches)
time.sleep(3)
print(*[child.pid for child in multiprocessing.active_children()], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def is_running(process: int) -> bool:
    """True if the process runs; False if it is missing or a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers do not notice the death of their parent")
def test_workers_exit_with_a_killed_parent(shards: Path) -> None:
    """Even if the pipe to the program is full of keys."""
    command = [sys.executable, "-c", KILLED_WHILE_IT_READS, str(shards), str(SAMPLE_RATE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        workers = [int(word) for word in program.stdout.readline().split()]
        assert program.wait() == -signal.SIGKILL
    assert len(workers) == 2
    deadline = time.monotonic() + 15
    while left := [worker for worker in workers if is_running(worker)]:
        if time.monotonic() > deadline:
            for worker in left:
                os.kill(worker, signal.SIGKILL)
            pytest.fail("workers still run")
        time.sleep(0.1)
