"""Merges the small files of a token table into few large ones for training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from codectok.tokens.table import TableMetadata, table_schema, table_writer

MEGABYTE = 1_000_000


def write_compact(
    path: Path,
    metadata: TableMetadata,
    tables: Iterable[pa.Table],
    group_bytes: float,
    more: Sequence[pa.Field] = (),
) -> None:
    """Write `tables` to one Parquet file; without rows no file is written.

    Args:
        path: the file.
        metadata: of the codes in all tables.
        tables: parts of one token table.
        group_bytes: least size of the codes in a row group; the last group may be smaller.
        more: columns that users have added to the token table.
    """
    schema = table_schema(metadata, more)
    groups = _groups((table.select(schema.names).cast(schema) for table in tables), group_bytes)
    first = next(groups, None)
    if first is None:
        return
    with table_writer(path, schema) as writer:
        writer.write_table(first)
        for group in groups:
            writer.write_table(group)


def _groups(tables: Iterable[pa.Table], group_bytes: float) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    held_bytes = 0
    for table in tables:
        if len(table):
            held.append(table)
            held_bytes += table["codes"].nbytes
        if held and held_bytes >= group_bytes:
            yield pa.concat_tables(held).combine_chunks()
            held, held_bytes = [], 0
    if held:
        yield pa.concat_tables(held).combine_chunks()
