"""Passes the events of a run to its log and its metrics."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from codectok.errors import CodectokError, InputError, described
from codectok.names import writable
from codectok.storage import LocalStorage, is_url, open_storage

from .event_log import EventLog
from .events import Event, RunEnded, RunStarted
from .metrics import RunMetrics
from .metrics_file import MetricsFile
from .series import MetricValues


class Monitor:
    """Log and metrics of one command, shared by the receivers of its events.

    Attributes:
        values: metrics.
        output: absolute path or URL of the output.
        part: see below.

    Args:
        verb: word of the command, such as "tokenize".
        output: path or URL of the output.
        part: "whole", or the share of the job.
        log_dir: folder or URL for events and metrics; None to keep none.
        on_note: called with a sentence when they cannot be written any more.

    Raises:
        InputError: the folder cannot be written, or lies in the output.
    """

    def __init__(self, verb: str, output: str, part: str, log_dir: str | None, on_note: Callable[[str], None]) -> None:
        self.values = MetricValues()
        self.output, self.part = writable(_whole(output)), part
        self._log: EventLog | None = None
        self._file: MetricsFile | None = None
        if log_dir is None:
            return
        if lies_in(log_dir, output):
            raise InputError(f"The log folder {log_dir} lies in the output {output}; choose another --log-dir.")
        folder = open_storage(log_dir)
        host, word = socket.gethostname(), re.sub(r"[^A-Za-z0-9]+", "-", verb)
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self._log = EventLog(folder, f"{word}-{host}-{os.getpid()}-{started}", on_note)
        if isinstance(folder, LocalStorage):
            tags = (verb, self.output, part, host)
            self._file = MetricsFile(folder, f"{word}-{host}", tags, self.values, on_note)

    def run(self, verb: str) -> RunMonitor:
        """Return the receiver of the events of the job or run `verb`."""
        return RunMonitor(self, verb, RunMetrics(self.values, verb, self.output, self.part))

    def write(self, event: Event, verb: str) -> None:
        """Write an event to the log, if there is one."""
        if self._log is not None:
            self._log.write(event, verb)
        self.refresh(now=isinstance(event, RunEnded))

    def refresh(self, now: bool = False) -> None:
        """Write the metrics, unless the last time is not long ago, and tell if the log has failed."""
        if self._file is not None:
            self._file.write(now)
        if self._log is not None:
            self._log.flush(wait=False)

    def close(self) -> None:
        """Write and close everything."""
        self.refresh(now=True)
        if self._log is not None:
            self._log.close()


class RunMonitor:
    """Receives the events of one run, or of its first pass.

    Attributes:
        totals: returns the totals for the last event; a key `ending` replaces "finished".
    """

    def __init__(self, monitor: Monitor, verb: str, metrics: RunMetrics) -> None:
        self.monitor, self._verb, self._metrics = monitor, verb, metrics
        self.totals: Callable[[], Mapping[str, Any]] = dict

    @contextmanager
    def first_pass(self, verb: str) -> Iterator[RunMonitor]:
        """Yield the receiver of the events of another job within this run, which ends with the context."""
        inner = self.monitor.run(verb)
        try:
            yield inner
        finally:
            inner._metrics.end()

    def emit(self, event: Event) -> None:
        """Update metrics and log."""
        self._metrics.emit(event)
        self.monitor.write(event, self._verb)

    def refresh(self) -> None:
        """Called every few seconds while the run works."""
        self._metrics.refresh()
        self.monitor.refresh()

    @contextmanager
    def recorded(self, version: str, options: Mapping[str, Any]) -> Iterator[None]:
        """Emit the start and the end of the command around the context, and close the log; see `RunStarted`."""
        started = time.monotonic()
        self.emit(
            RunStarted(
                command=("codectok", *sys.argv[1:]),
                version=version,
                host=socket.gethostname(),
                process=os.getpid(),
                output=self.monitor.output,
                part=self.monitor.part,
                options=options,
            )
        )
        ending, error = "interrupted", ""
        try:
            yield
            ending = "finished"
        except CodectokError as failure:
            ending, error = "failed", str(failure)
            raise
        except Exception as failure:
            ending, error = "failed", described(failure)
            raise
        finally:
            found = dict(self.totals())
            ending = str(found.pop("ending", ending)) if ending == "finished" else ending
            self.emit(RunEnded(ending, error, round(time.monotonic() - started, 3), found))
            self.monitor.close()


def _whole(place: str) -> str:
    """Absolute path of a folder, or its URL."""
    if is_url(place) and not place.startswith("file://"):
        return place.rstrip("/")
    return str(Path(place.removeprefix("file://")).absolute())


def lies_in(place: str, folder: str) -> bool:
    """True if the path or URL `place` is `folder` or lies in it."""
    inner, outer = (one if is_url(one) else str(Path(one).resolve()) for one in (_whole(place), _whole(folder)))
    return f"{inner}/".startswith(f"{outer.rstrip('/')}/")
