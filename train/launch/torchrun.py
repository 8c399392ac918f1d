"""Starts the ranks of a training run on this machine by torchrun, without Ray and without retries."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Sequence
from types import FrameType

import torch
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from codectok.device import resolve_device
from codectok.errors import CodectokError, InputError
from codectok.train.config import TrainConfig
from codectok.train.distributed import local_rank_count
from codectok.train.run.output import check_output
from codectok.train.run.preparation import open_segments
from codectok.train.signals import LAUNCHER


def run_under_torchrun(stages: Sequence[TrainConfig], command: Sequence[str], workers: int | None) -> None:
    """Run `codectok` with the arguments `command` on every rank.

    Args:
        stages: the runs of the command, checked before the ranks start.
        command: arguments of `codectok`.
        workers: number of ranks; by default one per GPU, or one on a CPU.

    Raises:
        InputError: data or output cannot be used, or there are fewer GPUs than ranks.
        CodectokError: a rank has failed; it has printed its own error.
        KeyboardInterrupt: the run was stopped by a signal.
    """
    for stage in stages:
        check_output(stage)
        open_segments(stage)
    on_gpus = resolve_device(stages[0].device).type == "cuda"
    count = local_rank_count(workers, stages[0].device)
    if on_gpus and count > torch.cuda.device_count():
        raise InputError(
            f"{count} ranks need {count} GPUs, but this machine has {torch.cuda.device_count()}; lower --workers."
        )
    before = signal.signal(signal.SIGUSR1, _stop_ranks)
    os.environ[LAUNCHER] = str(os.getpid())
    try:
        # Ranks leave their errors for the launcher here; its default folder would never be removed.
        with tempfile.TemporaryDirectory(prefix="codectok-torchrun-") as folder:
            config = LaunchConfig(
                min_nodes=1, max_nodes=1, nproc_per_node=count, run_id=uuid.uuid4().hex, rdzv_backend="c10d",
                rdzv_endpoint="localhost:0", max_restarts=0, logs_specs=DefaultLogsSpecs(folder),
            )  # fmt: skip
            elastic_launch(config, sys.executable)("-m", "codectok", *command)
    except SignalException:
        raise KeyboardInterrupt from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        ended = f"ended with exit code {failure.exitcode} (see its error above)"
        if failure.exitcode < 0:
            ended = f"was killed by {failure.signal_name()}, perhaps for lack of memory"
        raise CodectokError(f"Rank {rank} {ended}; run the same command to resume from the last checkpoint.") from None
    finally:
        del os.environ[LAUNCHER]
        signal.signal(signal.SIGUSR1, before)


def _stop_ranks(number: int, _: FrameType | None) -> None:
    """Stop as the launcher does for SIGTERM: it passes the signal on to the ranks and waits for them."""
    raise SignalException("stopped", signal.Signals(number))
