"""`codectok export huggingface`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codectok.cli.console import facts_table
from codectok.formatting import format_duration

from .options import AllowMixedOption

NAME = "huggingface"
EXAMPLE = "codectok export huggingface tokens/"


def run(
    table: Annotated[Path, typer.Argument(help="Folder of a token table; README.md is written into it.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing README.md.")] = False,
    allow_mixed: AllowMixedOption = False,
) -> None:
    """Write a dataset card beside a table, so that `datasets.load_dataset` and the Hub read the folder."""
    from codectok.exports.dataset_card import CARD_FILE, write_dataset_card

    totals = write_dataset_card(table, overwrite, allow_mixed)
    facts = {"card": table / CARD_FILE, "rows": f"{totals.rows:,}", "audio": format_duration(totals.seconds)}
    facts_table("codectok export huggingface", facts)
