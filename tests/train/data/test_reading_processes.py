"""Processes that read training data: what they ignore, how they end, and what they say where they cannot go on."""

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
from codectok.train.data import loader
from codectok.train.data.loader import SegmentLoader
from codectok.train.signals import STOP_SIGNALS
from tests.train.conftest import SAMPLE_RATE

from .test_loader import BATCH, batches, data_config, dataset


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who has sent a signal")
def test_workers_do_not_answer_what_stops_the_run(shards: Path) -> None:
    """A batch system's SIGTERM reaches all processes of a run; those that read are still needed."""
    config = data_config(shards=shards, num_workers=1)
    found = iter(SegmentLoader(dataset(config), config))
    next(found)
    (worker,) = multiprocessing.active_children()
    for number in STOP_SIGNALS:
        subprocess.run(["kill", f"-{number}", str(worker.pid)], check=True)
    assert [next(found).position for _ in range(6)] == [BATCH * n for n in range(2, 8)]
    assert worker.is_alive()


READS_AND_ENDS = """
import multiprocessing, sys
from codectok.train.data.config import DataConfig
from codectok.train.data.loader import SegmentLoader
from codectok.train.data.segments import SegmentDataset

multiprocessing.set_start_method(sys.argv[3])
config = DataConfig(shards=sys.argv[1], batch_size=4, num_workers=2)
batches = iter(SegmentLoader(SegmentDataset(config, int(sys.argv[2]), 900, seed=0), config))
for _ in range(6):
    next(batches)
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_program_that_ends_while_it_reads_does_not_wait_for_its_workers(method: str, shards: Path) -> None:
    """At its end multiprocessing ends and joins them, while what has been read is still referred to."""
    command = [sys.executable, "-c", READS_AND_ENDS, str(shards), str(SAMPLE_RATE), method]
    assert subprocess.run(command, check=False, timeout=100).returncode == 0


@pytest.mark.parametrize("part", ["waveforms", "mask"])
def test_too_little_shared_memory_is_one_sentence(part: str, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch says it, or, while a batch is sent, says it to nobody and leaves the program waiting."""

    def refuse(*_: object) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_0>: Success (0)")

    if part == "waveforms":
        monkeypatch.setattr(loader, "default_collate", refuse)
    else:
        monkeypatch.setattr(loader, "default_collate", torch.stack)
        monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    with pytest.raises(InputError, match=r"do not fit into shared memory \(/dev/shm\)"):
        batches(data_config(shards=shards, num_workers=1), 1)


KILLED_WHILE_IT_READS = """
import multiprocessing, os, signal, sys, time
from codectok.train.data.config import DataConfig
from codectok.train.data.loader import SegmentLoader
from codectok.train.data.segments import SegmentDataset

config = DataConfig(shards=sys.argv[1], batch_size=10_000, num_workers=2)
batches = iter(SegmentLoader(SegmentDataset(config, int(sys.argv[2]), 1, seed=0), config))
next(batches)
time.sleep(3)
print(*[child.pid for child in multiprocessing.active_children()], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def lives(process: int) -> bool:
    """Whether there is such a process, and not only its exit code that nobody has asked for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers wait for a word of the parent's")
def test_workers_end_with_a_program_that_is_killed(shards: Path) -> None:
    """Even where so many keys are on their way that the pipe to it is full."""
    command = [sys.executable, "-c", KILLED_WHILE_IT_READS, str(shards), str(SAMPLE_RATE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        workers = [int(word) for word in program.stdout.readline().split()]
        assert program.wait() == -signal.SIGKILL
    assert len(workers) == 2
    deadline = time.monotonic() + 15
    while left := [worker for worker in workers if lives(worker)]:
        if time.monotonic() > deadline:
            for worker in left:
                os.kill(worker, signal.SIGKILL)
            pytest.fail("workers live on")
        time.sleep(0.1)
