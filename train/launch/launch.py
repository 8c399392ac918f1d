"""Starting a training run: which process this is among others, and what stops it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

from codectok.train.config import TrainConfig
from codectok.train.data.loader import worker_deaths_explained
from codectok.train.distributed import join_ranks
from codectok.train.memory import keep_freed_memory
from codectok.train.run.metrics_log import LogListener
from codectok.train.run.run import Flag, TrainingReport, TrainingRun
from codectok.train.signals import stop_on_interrupt


def run_training(config: TrainConfig, on_log: LogListener, interrupted: Flag | None = None) -> TrainingReport:
    """Train until `config.steps`, going on from the newest checkpoint in `config.output` where there is one.

    Under `torchrun` this is one of several ranks. `on_log` hears of every logged step, on the first rank only. Ctrl-C,
    or `interrupted` where that is given, ends the run after the current step, with a checkpoint.

    Raises:
        InputError: the output folder belongs to a run with another configuration, or the data cannot be used.
        CodectokError: a loss is no longer a finite number, or has exploded.
    """
    ranks, device = join_ranks(config.device)
    keep_freed_memory(device)
    run = TrainingRun(config, device, ranks, on_log)
    with stop_on_interrupt() if interrupted is None else nullcontext(interrupted) as stop, worker_deaths_explained():
        report = run.run(stop)
    # From here on signals break in: none is forgotten.
    return replace(report, to_stop=ranks.any(stop.is_set(), device))
