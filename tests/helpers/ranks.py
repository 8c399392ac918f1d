"""Runs a function on several ranks of a process group on this machine."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from codectok.train.distributed import Ranks, leave_process_group

ROOT = Path(__file__).parents[2]
SECONDS = 120
# Ranks are forked from a process that has imported these; codectok itself might there be another one.
LIBRARIES = [
    "torch",
    "torch.distributed",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "pydantic",
    "pytest",
    "soundfile",
]


def run_on_ranks(work: Callable[..., Any], n_ranks: int, *arguments: Any) -> list[Any]:
    """Results of `work(*arguments)` on each of `n_ranks` ranks, joined by gloo over the loopback interface.

    `work` must be a module-level function with arguments that can be pickled and a result that torch can save. No
    process and no file is left behind; a rank that fails or takes too long fails the test.
    """
    clean = multiprocessing.get_context("forkserver")
    clean.set_forkserver_preload(LIBRARIES)
    with tempfile.TemporaryDirectory(prefix="ct-ranks-") as folder:
        arguments_of = [(work, rank, n_ranks, folder, arguments) for rank in range(n_ranks)]
        ranks = [clean.Process(target=_run, args=each, daemon=True) for each in arguments_of]
        try:
            # New processes must find this package, no matter how pytest was started.
            with mock.patch.object(sys, "path", [str(ROOT), *sys.path]):
                for rank in ranks:
                    rank.start()
            deadline = time.monotonic() + SECONDS
            while any(rank.exitcode is None for rank in ranks):
                assert all(rank.exitcode in (None, 0) for rank in ranks), "a rank failed, see its traceback"
                assert time.monotonic() < deadline, "ranks wait for each other"
                time.sleep(0.05)
        finally:
            for rank in ranks:
                if rank.pid is not None:
                    rank.kill()
                    rank.join()
        assert all(rank.exitcode == 0 for rank in ranks), "a rank failed, see its traceback"
        return [torch.load(_result(folder, rank), weights_only=False) for rank in range(n_ranks)]


def own_rank() -> Ranks:
    """Rank of this process in the process group; alone without one."""
    return Ranks(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Ranks()


def _run(work: Callable[..., Any], rank: int, n_ranks: int, folder: str, arguments: tuple[Any, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=n_ranks,
        timeout=timedelta(seconds=SECONDS),
    )
    torch.save(work(*arguments), _result(folder, rank))
    leave_process_group()


def _result(folder: str, rank: int) -> Path:
    return Path(folder) / f"rank-{rank}.pt"
