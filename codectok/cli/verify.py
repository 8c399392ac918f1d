"""`codectok verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import facts_table, format_duration, megabytes, progress

NAME = "verify"
EXAMPLE = "codectok verify shards/"


def run(
    target: Annotated[str, typer.Argument(help="Folder or URL that `shard` or `tokenize` has written.")],
) -> None:
    """Check that an output is whole and is what it says it is."""
    from codectok.pipelines.verify import count_files, verify_output
    from codectok.storage import open_storage

    storage = open_storage(target)
    with progress(count_files(storage), "verify: files") as report:
        verified = verify_output(storage, report.advance)
    facts_table(
        f"codectok verify {target}: all is as it should be",
        {
            "units": f"{verified.units:,}",
            "files": f"{verified.files:,} ({megabytes(verified.bytes)})",
            "rows": f"{verified.rows:,}",
            "audio": format_duration(verified.seconds),
        },
    )
