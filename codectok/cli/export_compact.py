"""`codectok export compact`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import facts_table, megabytes, progress

NAME = "compact"
EXAMPLE = "codectok export compact tokens/ compact/"


def run(
    table: Annotated[str, typer.Argument(help="Folder or URL that `tokenize` has written, or one Parquet file.")],
    output: Annotated[Path, typer.Argument(help="Folder for the large files; new or empty.")],
    file_megabytes: Annotated[float, typer.Option(help="Least size of a file.")] = 256.0,
    group_megabytes: Annotated[float, typer.Option(help="Least size of the codes in a row group.")] = 32.0,
) -> None:
    """Merge the parts of a token table into files as training reads them best."""
    from codectok.exports.compact import compact
    from codectok.tokens.table import table_files

    with progress(len(table_files(table)), "export compact") as report:
        done = compact(table, output, file_megabytes, group_megabytes, report.advance)
    facts = {"output": output, "rows": f"{done.rows:,}", "files": f"{done.files:,} ({megabytes(done.bytes)})"}
    facts_table("codectok export compact", facts)
