"""Starting a training run: which process this is among others, and how it is stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .config import TrainConfig
from .memory import keep_freed_memory
from .ranks import join_ranks
from .run import Flag, TrainingReport, TrainingRun
from .run_log import LogListener

# SIGUSR1: for batch systems in front of launchers that take SIGTERM for the order to kill ranks soon.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def run_training(config: TrainConfig, on_log: LogListener, interrupted: Flag | None = None) -> TrainingReport:
    """Train until `config.steps`, going on from the newest checkpoint in `config.output` where there is one.

    Under `torchrun` this is one of several ranks. `on_log` hears of every logged step, on the first rank only. Ctrl-C,
    or `interrupted` where that is given, ends the run after the current step, with a checkpoint.

    Raises:
        InputError: the output folder belongs to a run with another configuration, or the data cannot be used.
        CodectokError: a loss is no longer a finite number, or has exploded.
    """
    ranks, device = join_ranks(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    run = TrainingRun(config, device, ranks, on_log)
    if interrupted is not None:
        return run.run(interrupted)
    with stop_on_interrupt() as stop:
        return run.run(stop)


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM or SIGUSR1 sets, instead of breaking into a step; a second Ctrl-C breaks in."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def stop(number: int, _: FrameType | None) -> None:
        # Batch systems and launchers pass the same SIGTERM on more than once.
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
