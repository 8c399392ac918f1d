"""Runs one rank of a training run in this process."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

from codectok.monitoring.events import EventSink
from codectok.train.config import TrainConfig
from codectok.train.data.workers import worker_errors
from codectok.train.distributed import join_process_group
from codectok.train.memory import keep_freed_memory
from codectok.train.run.metrics_log import MetricsCallback
from codectok.train.run.run import StopFlag, TrainingReport, TrainingRun
from codectok.train.signals import stop_on_interrupt


def train(
    config: TrainConfig,
    on_metrics: MetricsCallback | None = None,
    stop: StopFlag | None = None,
    events: EventSink | None = None,
) -> TrainingReport:
    """Train until `config.steps`, resuming from the newest checkpoint in `config.output` if there is one.

    Under torchrun this process is one of several ranks.

    Args:
        config: of the run.
        on_metrics: called with every logged step and its metrics, on the first rank only.
        stop: ends the run after the current step with a checkpoint. If None, Ctrl-C, SIGTERM and SIGUSR1 do that.
        events: receives metrics and checkpoints, on the first rank only.

    Raises:
        InputError: the output belongs to a run with another configuration, or the data cannot be used.
        PassingError: a process that reads data has died.
        CodectokError: training has diverged.
    """
    ranks, device = join_process_group(config.device)
    keep_freed_memory(device)
    run = TrainingRun(config, device, ranks, on_metrics or _ignore, events)
    with stop_on_interrupt() if stop is None else nullcontext(stop) as flag, worker_errors():
        report = run.run(flag)
    # Read after the context: a later signal interrupts, so none is lost.
    return replace(report, stop_requested=ranks.any(flag.is_set(), device))


def _ignore(step: int, metrics: dict[str, float]) -> None:
    pass
