"""Output to the terminal: tables, warnings, progress."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import IO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from codectok.formatting import format_duration

from .streams import Stream

PLAIN_LINE_SECONDS = 60.0
# Names of rows in tables that are not broken into lines.
LONGEST_ROW_NAME = 24
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

console = Console(file=cast(IO[str], Stream("stdout")), highlight=False, soft_wrap=True)
error_console = Console(file=cast(IO[str], Stream("stderr")), highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning as one line on standard error."""
    error_console.print(Text.assemble(("Warning:", "yellow"), " ", _plain(message)))


def fail(message: str) -> None:
    """Print the error that ended a verb as one line on standard error."""
    error_console.print(Text.assemble(("Error:", "bold red"), " ", _plain(message)))


def say(message: str) -> None:
    """Print one line on standard output."""
    console.print(_plain(message))


def facts_table(title: str, facts: Mapping[str, object]) -> None:
    """Print a table of names and values."""
    show([table_of_facts(title, facts)])


def rows_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table with one line for each row."""
    show([table_of_rows(title, header, rows)])


def show(tables: Iterable[Table]) -> None:
    """Print tables."""
    for table in tables:
        console.print(table, soft_wrap=False)


@contextmanager
def live_tables() -> Iterator[Callable[[Iterable[Table]], None]]:
    """Yield a function that replaces the tables on the terminal; they are gone at the end of the context."""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda tables: live.update(Group(*tables), refresh=True)


def table_of_facts(title: str, facts: Mapping[str, object]) -> Table:
    """Make a table of names and values."""
    table = Table(title=_plain(title, "table.title"), title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(_plain(name), _plain(str(value)))
    return table


def table_of_rows(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Make a table with one line for each row."""
    table = Table(title=_plain(title, "table.title"), title_justify="left")
    rows = [*rows]
    # The names of rows stay whole if they are short; the other columns share the rest.
    names_are_short = max((len(str(row[0])) for row in rows), default=0) <= LONGEST_ROW_NAME
    for number, name in enumerate(header):
        table.add_column(_plain(name), overflow="fold", no_wrap=names_are_short and number == 0)
    for row in rows:
        table.add_row(*[_plain(str(value)) for value in row])
    return table


class ProgressReport:
    """Progress as a bar on a terminal, and as a plain line each minute elsewhere."""

    def __init__(self, bar: Progress | None, total: float | None, description: str) -> None:
        self._bar, self._total, self._description = bar, total, description
        self._task: TaskID | None = bar.add_task(description, total=total, note="") if bar else None
        self._done, self._note = 0.0, ""
        self._started = time.monotonic()

    def set_total(self, total: float) -> None:
        """Set the total and restart the count and the clock at 0."""
        self._total, self._done = total, 0.0
        self._started = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.reset(self._task, total=total)

    def advance(self, note: str = "", amount: float = 1.0) -> None:
        """Add `amount` to the progress; `note` is shown beside it."""
        self._done += amount
        self._note = note
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, note=_escape(note))

    def line(self) -> str:
        """Format the progress as one line."""
        elapsed = time.monotonic() - self._started
        facts = [f"{format_duration(elapsed)} so far"]
        if self._total:
            facts.insert(0, f"{self._done / self._total:.0%}")
            if self._done:
                left = elapsed * max(0.0, self._total - self._done) / self._done
                facts.append(f"{format_duration(left)} left")
        elif self._done:
            facts.insert(0, f"{self._done:,.0f}")
        return f"{self._description}: {', '.join([*facts, *filter(None, [self._note])])}"

    def set_done(self, done: float) -> None:
        """Set the progress of a bar; without a terminal, do nothing, since the caller prints lines."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done)


@contextmanager
def progress(total: float | None, description: str, lines: bool = True) -> Iterator[ProgressReport]:
    """Show progress while the context lasts.

    Args:
        total: amount to do; None if unknown.
        description: shown before the progress.
        lines: print a line each minute where there is no terminal.
    """
    if not console.is_terminal:
        report = ProgressReport(None, total, description)
        with _every(PLAIN_LINE_SECONDS, lambda: say(report.line())) if lines else nullcontext():
            yield report
        return
    texts = [TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[note]}")]
    columns = (texts[0], BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), texts[1])
    with Progress(*columns, console=console, transient=True) as bar:
        yield ProgressReport(bar, total, description)


@contextmanager
def _every(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    """Call `action` from another thread at this interval while the context lasts."""
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


def _plain(text: str, style: str = "") -> Text:
    """Make a text in which rich looks for neither markup, such as [words in brackets], nor names of emoji."""
    return Text(_escape(text), style)


def _escape(text: str) -> str:
    # Names of clips may contain any character, also line breaks and escape sequences.
    return CONTROL_CHARACTERS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
