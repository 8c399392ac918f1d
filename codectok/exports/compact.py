"""Many small parts of a token table into few large files, for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ..atomic import replacing_folder
from ..errors import InputError
from ..tokens.table import read_metadata, table_files, table_schema, table_writer

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Compacted:
    """What was written."""

    rows: int
    files: int
    bytes: int


def compact(
    source: str | Path,
    output: Path,
    file_megabytes: float = 256.0,
    group_megabytes: float = 32.0,
    on_file: Callable[[], None] = lambda: None,
) -> Compacted:
    """Write the rows of the table at `source` in the same order into larger files in the new folder `output`.

    Args:
        source: a token table.
        output: a folder, new or empty.
        file_megabytes, group_megabytes: least size of a file, and of the codes in a row group.
        on_file: called for each file of `source` that is done.

    Raises:
        InputError: no token table, an output that is taken, or impossible sizes.
    """
    if not 0 < group_megabytes <= file_megabytes:
        raise InputError(f"Row groups of {group_megabytes:g} MB in files of {file_megabytes:g} MB are impossible.")
    schema = table_schema(read_metadata(source).model_copy(update={"unit_hash": None}))
    groups = _groups(source, schema, round(group_megabytes * MEGABYTE), on_file)
    rows = files = size = 0
    # Half a table would open as a whole one.
    with replacing_folder(output) as unfinished:
        group = next(groups, None)
        if group is None:
            raise InputError(f"{source} holds no row; there is nothing to compact.")
        while group is not None:
            path = unfinished / f"part-{files:06d}.parquet"
            with path.open("wb") as file, table_writer(file, schema) as writer:
                while group is not None and file.tell() < file_megabytes * MEGABYTE:
                    writer.write_table(group)
                    rows += len(group)
                    group = next(groups, None)
            files += 1
            size += path.stat().st_size
    return Compacted(rows, files, size)


def _groups(source: str | Path, schema: pa.Schema, group_bytes: int, on_file: Callable[[], None]) -> Iterator[pa.Table]:
    """The rows in tables of at least so many bytes of codes."""
    held: list[pa.Table] = []
    held_bytes = 0
    for table_file in table_files(source):
        with table_file.open() as file:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, columns=schema.names).cast(schema)
                held.append(table)
                held_bytes += table["codes"].nbytes
                if held_bytes >= group_bytes:
                    yield pa.concat_tables(held).combine_chunks()
                    held, held_bytes = [], 0
        on_file()
    if held:
        yield pa.concat_tables(held).combine_chunks()
