"""`codectok report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codectok.errors import InputError
from codectok.formatting import megabytes

from .console import facts_table

NAME = "report"
EXAMPLE = "codectok report run/"
SUFFIXES = (".html", ".htm")


def run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Output folder of a training run.")],
    out: Annotated[
        Path | None, typer.Option(help="The .html file to write or replace.", show_default="report.html in the run")
    ] = None,
) -> None:
    """Write a page about a training run: losses, use of the codes, validation clips, configuration.

    The run may have ended, or may still be running. The page holds all that it shows, and opens without a network.
    """
    from codectok.atomic import remove_leftovers, write_text
    from codectok.train.report.page import run_page

    target = run / "report.html" if out is None else out
    if target.suffix.lower() not in SUFFIXES or target.is_dir():
        raise InputError(f"--out must be a file that ends with .html, not {target}.")
    page = run_page(run)
    remove_leftovers(target)
    write_text(target, page)
    facts_table("codectok report", {"run": run, "page": target, "size": megabytes(target.stat().st_size)})
