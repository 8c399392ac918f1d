"""`codectok status`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from .console import console, live_tables, say, show
from .status_views import JobView, StatusView, TrainView

NAME = "status"
EXAMPLE = "codectok status tokens/ --watch"
# Seconds between two looks, on a terminal and in a log; object stores are asked less often.
TERMINAL_SECONDS, LOG_SECONDS, STORE_SECONDS = 2.0, 10.0, 10.0
# A look takes at most this share of the time.
SHARE_OF_LOOKING = 0.1


def run(
    output: Annotated[str, typer.Argument(metavar="OUT", help="Output folder or URL of a job, or folder of `train`.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again every few seconds until no process works on it.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; with --watch one for each look.")
    ] = False,
) -> None:
    """Show how far a job or a training run is, who works on it, and what failed.

    It reads the files of the output alone, from any machine that reaches them, and writes nothing.
    """
    look = _reader(output)
    if not watch:
        _print(look(), as_json)
        return
    with suppress(KeyboardInterrupt):
        if as_json or not console.is_terminal:
            view = _watch_lines(look, as_json, output)
        else:
            with live_tables() as replace:
                view = _watch(look, lambda view: replace(view.tables()), TERMINAL_SECONDS, output)
        if not as_json:
            _print(view, as_json)


def _reader(output: str) -> Callable[[], StatusView]:
    """Return a function that reads the status."""
    from codectok.storage import is_url

    if not is_url(output) and not (Path(output) / "_codectok").is_dir():
        from codectok.train.report.status import read_training_status, training_folders

        folders = training_folders(Path(output))
        if folders:
            return lambda: TrainView([read_training_status(folder) for folder in folders])
    from codectok.pipelines.engine.status import JobReader

    reader = JobReader(output)
    return lambda: JobView(reader.read())


def _print(view: StatusView, as_json: bool) -> None:
    if as_json:
        say_json(view)
    else:
        show(view.tables())


def say_json(view: StatusView) -> None:
    """Print the facts on one line; rich would take brackets for markup."""
    console.out(json.dumps(view.facts()))


def _watch_lines(look: Callable[[], StatusView], as_json: bool, output: str) -> StatusView:
    last = ""

    def print_line(view: StatusView) -> None:
        nonlocal last
        if as_json:
            say_json(view)
        elif view.line() != last:
            last = view.line()
            say(last)

    return _watch(look, print_line, LOG_SECONDS, output)


def _watch(
    look: Callable[[], StatusView], show_view: Callable[[StatusView], None], seconds: float, output: str
) -> StatusView:
    """Show one look after the other, and return the last one, when the work is over."""
    from codectok.storage import is_url

    if is_url(output):
        seconds = max(seconds, STORE_SECONDS)
    while True:
        started = time.monotonic()
        view = look()
        show_view(view)
        if view.is_over:
            return view
        time.sleep(max(seconds, (time.monotonic() - started) / SHARE_OF_LOOKING))
