"""What the terminal shows: tables, warnings, progress."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from codectok.formatting import format_duration as format_duration

PLAIN_LINE_SECONDS = 60.0
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

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


def counted(count: int, noun: str) -> str:
    """A number of things: 1 worker, 2 workers."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def megabytes(n_bytes: int) -> str:
    """A size in MB."""
    return f"{n_bytes / 1e6:,.2f} MB"


class ProgressReport:
    """A bar on a terminal, a plain line each minute elsewhere."""

    def __init__(self, bar: Progress | None, total: float | None, what: str) -> None:
        self._bar, self._total, self._what = bar, total, what
        self._task: TaskID | None = bar.add_task(what, total=total, note="") if bar else None
        self._done, self._note = 0.0, ""
        self._started = time.monotonic()

    def set_total(self, total: float) -> None:
        """Say how much there is to do, once that is known; what was done before belonged to another count."""
        self._total, self._done = total, 0.0
        self._started = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.reset(self._task, total=total)

    def advance(self, note: str = "", amount: float = 1.0) -> None:
        """Count a step as done; `note` says what has come of it so far."""
        self._done += amount
        self._note = note
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, note=_escape(note))

    def line(self) -> str:
        """How far it is, in words."""
        elapsed = time.monotonic() - self._started
        facts = [f"{format_duration(elapsed)} so far"]
        if self._total:
            facts.insert(0, f"{self._done / self._total:.0%}")
            if self._done:
                left = elapsed * max(0.0, self._total - self._done) / self._done
                facts.append(f"{format_duration(left)} left")
        elif self._done:
            facts.insert(0, f"{self._done:,.0f}")
        return f"{self._what}: {', '.join([*facts, *filter(None, [self._note])])}"

    def reach(self, done: float) -> None:
        """Show how far it has come in a bar; whoever calls this writes lines himself."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done)


@contextmanager
def progress(total: float | None, what: str, lines: bool = True) -> Iterator[ProgressReport]:
    """Show progress over `total` (None where nobody knows yet) while the context lasts; `lines` where no bar can be."""
    if not console.is_terminal:
        report = ProgressReport(None, total, what)
        with _every(PLAIN_LINE_SECONDS, lambda: say(report.line())) if lines else nullcontext():
            yield report
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console, transient=True) as bar:
        yield ProgressReport(bar, total, what)


@contextmanager
def _every(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    """Call `action` each time so many seconds have passed, from a thread of its own, while the context lasts."""
    ended = threading.Event()

    def call() -> None:
        while not ended.wait(seconds):
            action()

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _escape(text: str) -> str:
    # Names of clips may hold anything, also what breaks lines or moves a terminal's cursor.
    text = CONTROL_CHARACTERS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    # Rich takes [words in brackets] for markup; shapes and paths have brackets of their own.
    return text.replace("[", r"\[")
