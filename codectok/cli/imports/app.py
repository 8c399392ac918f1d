"""`codectok import`."""

from __future__ import annotations

import typer

from . import codes

NAME = "import"

app = typer.Typer(no_args_is_help=True, help="Make a token table of data that others made.")


@app.callback()
def _root() -> None:
    """Make a token table of data that others made."""


app.command(codes.NAME, epilog=f"Example: `{codes.EXAMPLE}`")(codes.run)
