"""Merges the small files of a token table into few large ones for training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from codectok.tokens.table import TableMetadata, table_schema, table_writer

MEGABYTE = 1_000_000
# Readers overflow at 2^31 values of a column chunk, and hold a row group in memory.
MAX_GROUP_CODES = 1 << 28


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
        group_bytes: least size of the codes in a row group; the last group may be smaller, and so are groups that would
            have more than `MAX_GROUP_CODES` codes.
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
    held_bytes = held_codes = 0
    for table in tables:
        if not len(table):
            continue
        n_codes = sum(len(chunk.flatten()) for chunk in table["codes"].chunks)
        if held and held_codes + n_codes > MAX_GROUP_CODES:
            yield pa.concat_tables(held).combine_chunks()
            held, held_bytes, held_codes = [], 0, 0
        held.append(table)
        held_bytes, held_codes = held_bytes + table["codes"].nbytes, held_codes + n_codes
        if held_bytes >= group_bytes:
            yield pa.concat_tables(held).combine_chunks()
            held, held_bytes, held_codes = [], 0, 0
    if held:
        yield pa.concat_tables(held).combine_chunks()
