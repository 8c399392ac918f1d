"""Events and metrics of a job, around its run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import codectok
from codectok.monitoring.monitor import Monitor, RunMonitor

from .lock import run_name
from .options import RunOptions
from .progress import ProgressCallback


@contextmanager
def watched(verb: str, output: str | Path, options: RunOptions, progress: ProgressCallback) -> Iterator[RunMonitor]:
    """Yield the receiver of the events of a run, between its first and its last event.

    Raises:
        InputError: the log cannot be written to the folder of the options.
    """
    monitor = Monitor(verb, str(output), run_name(options.part), options.log_dir, progress.note)
    events = monitor.run(verb)
    with events.recorded(codectok.__version__, asdict(options)):
        yield events
