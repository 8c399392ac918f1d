"""A training run on several ranks of this machine, without Ray."""

from __future__ import annotations

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
from codectok.train.distributed import ranks_of_this_machine
from codectok.train.run.run import check_output, open_dataset


def run_under_torchrun(stages: Sequence[TrainConfig], command: Sequence[str], workers: int | None) -> None:
    """Run `codectok` with the arguments `command` once for each rank.

    Args:
        stages: the runs that it makes, to be checked before anything is started.
        command: after the name of the program.
        workers: ranks; one for each GPU by default, or one where there is none.

    Raises:
        InputError: data or output cannot be used, or there are more ranks than GPUs.
        CodectokError: a rank has failed; it has said why.
    """
    for stage in stages:
        check_output(stage)
        open_dataset(stage)
    on_gpus = resolve_device(stages[0].device).type == "cuda"
    count = ranks_of_this_machine(workers, stages[0].device)
    if on_gpus and count > torch.cuda.device_count():
        raise InputError(
            f"{count} ranks need as many GPUs, and there are {torch.cuda.device_count()}; lower --workers."
        )
    before = signal.signal(signal.SIGUSR1, _stop_ranks)
    try:
        # Where ranks leave their errors for the launcher, which would not remove a folder of its own.
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
        ended = f"has ended with exit code {failure.exitcode}, and said above why"
        if failure.exitcode < 0:
            ended = f"was killed by {failure.signal_name()}, as systems do that run out of memory"
        raise CodectokError(f"Rank {rank} {ended}; the same command goes on from the last checkpoint.") from None
    finally:
        signal.signal(signal.SIGUSR1, before)


def _stop_ranks(number: int, _: FrameType | None) -> None:
    """What the launcher does at the signals that it knows: it passes them on, and waits."""
    raise SignalException("stopped", signal.Signals(number))
