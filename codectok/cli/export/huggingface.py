"""`codectok export huggingface`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codectok.cli.console import facts_table
from codectok.formatting import format_duration

NAME = "huggingface"
EXAMPLE = "codectok export huggingface tokens/"


def run(
    table: Annotated[Path, typer.Argument(help="Folder of a token table; it gets a README.md.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a README.md that is there.")] = False,
) -> None:
    """Write a data set card beside a table, so that `datasets.load_dataset` and the Hub read the folder."""
    from codectok.exports.dataset_card import CARD_FILE, write_dataset_card

    totals = write_dataset_card(table, overwrite)
    facts = {"card": table / CARD_FILE, "rows": f"{totals.rows:,}", "audio": format_duration(totals.seconds)}
    facts_table("codectok export huggingface", facts)
