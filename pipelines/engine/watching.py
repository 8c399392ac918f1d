"""Events and metrics of a job, around its run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import codectok
from codectok.errors import InputError
from codectok.monitoring.monitor import Monitor, RunMonitor, lies_in
from codectok.sources.listing.arguments import parse_arguments

from .job import Job
from .lock import run_name
from .options import RunOptions
from .progress import ProgressCallback


@contextmanager
def watched(
    job: Job, sources: Sequence[str], output: str | Path, options: RunOptions, progress: ProgressCallback
) -> Iterator[RunMonitor]:
    """Yield the receiver of the events of a run, between its first and its last event.

    Raises:
        InputError: the log cannot be written to the folder of the options, or would be listed with the sources.
    """
    if options.log_dir is not None:
        _check_sources(job, sources, options.log_dir)
    monitor = Monitor(job.verb, str(output), run_name(options.part), options.log_dir, progress.note)
    events = monitor.run(job.verb)
    with events.recorded(codectok.__version__, asdict(options)):
        yield events


def _check_sources(job: Job, sources: Sequence[str], log_dir: str) -> None:
    """Raise an `InputError` if files of the log would be listed, since the output depends on the listing."""
    try:
        arguments, roots = parse_arguments(sources, job.kinds)
    except InputError:
        return  # it is told when the job is planned
    for root in {roots[argument.dataset] for argument in arguments if argument.kind in ("folder", "glob")}:
        if lies_in(log_dir, root):
            raise InputError(f"The log folder {log_dir} lies in the source {root}; choose another --log-dir.")
