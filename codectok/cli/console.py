"""What the terminal shows: tables, warnings, progress."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

PLAIN_LINE_SECONDS = 60.0

console = Console(highlight=False, soft_wrap=True)
error_console = Console(stderr=True, highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    """One line on standard error."""
    error_console.print(f"[yellow]Warning:[/] {_escape(message)}")


def fail(message: str) -> None:
    """The one sentence that says why a verb ended."""
    error_console.print(f"[bold red]Error:[/] {_escape(message)}")


def say(message: str) -> None:
    """One line on standard output."""
    console.print(_escape(message))


def facts_table(title: str, facts: Mapping[str, object]) -> None:
    """A table of names and values."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, _escape(str(value)))
    console.print(table, soft_wrap=False)


def rows_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table with one line for each of `rows`."""
    table = Table(title=title, title_justify="left")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*[_escape(str(value)) for value in row])
    console.print(table, soft_wrap=False)


def format_duration(seconds: float) -> str:
    """A duration as people say it: 35 s, 12.3 min, 4.56 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.2f} h"


def megabytes(n_bytes: int) -> str:
    """A size in MB."""
    return f"{n_bytes / 1e6:,.2f} MB"


class ProgressReport:
    """A bar on a terminal, now and then a plain line elsewhere."""

    def __init__(self, bar: Progress | None, total: float | None, what: str) -> None:
        self._bar, self._total, self._what = bar, total, what
        self._task: TaskID | None = bar.add_task(what, total=total, note="") if bar else None
        self._done = 0.0
        self._started = self._last_line = time.monotonic()

    def set_total(self, total: float) -> None:
        """Say how much there is to do, once that is known; what was done before belonged to another count."""
        self._total, self._done = total, 0.0
        self._started = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.reset(self._task, total=total)

    def advance(self, note: str = "", amount: float = 1.0) -> None:
        """Count a step as done; `note` says what has come of it so far."""
        self._done += amount
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, note=_escape(note))
        elif now - self._last_line > PLAIN_LINE_SECONDS:
            self._last_line = now
            share = f" {self._done / self._total:.0%}" if self._total else f" {self._done:,.0f}"
            left = f", {format_duration(self._seconds_left(now))} left" if self._total else ""
            say(f"{self._what}:{share}{left}{', ' if note else ''}{note}")

    def reach(self, done: float) -> None:
        """Show how far it has come in a bar; whoever calls this writes lines himself."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done)

    def _seconds_left(self, now: float) -> float:
        assert self._total is not None, "otherwise nobody knows"
        return (now - self._started) * max(0.0, self._total - self._done) / self._done


@contextmanager
def progress(total: float | None, what: str) -> Iterator[ProgressReport]:
    """Show progress over `total` (None where nobody knows yet) while the context lasts."""
    if not console.is_terminal:
        yield ProgressReport(None, total, what)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console, transient=True) as bar:
        yield ProgressReport(bar, total, what)


def _escape(text: str) -> str:
    # Rich takes [words in brackets] for markup; shapes and paths have brackets of their own.
    return text.replace("[", r"\[")
