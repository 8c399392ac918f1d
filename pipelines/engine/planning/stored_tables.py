"""Tables of a stored plan: written once, and read with one row group in memory."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codectok.errors import damage_errors
from codectok.storage import Storage

ROW_GROUP_ROWS = 65_536
REMEDY = "choose another folder, or put the file back"


def write_table(storage: Storage, name: str, table: pa.Table) -> None:
    """Write a table to the file `name`."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=ROW_GROUP_ROWS)
    storage.write(name, buffer.getvalue())


def read_table(storage: Storage, name: str, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read a table whose columns have the types of `schema`; earlier versions may have written fewer.

    Raises:
        InputError: the file is damaged.
    """
    data = storage.read(name)
    with damage_errors(f"{storage.url}/{name}", REMEDY):
        # From memory and in this thread: a thread of Arrow that still holds a Python file when the process ends aborts.
        table = pq.read_table(pa.BufferReader(data), columns=columns, use_threads=False)
        _check_types(table.schema, schema)
        table.validate(full=True)
        return table


class StoredTable:
    """Reads rows of a table, with one row group in memory.

    Raises:
        InputError: the file is damaged; also when rows are read.
    """

    def __init__(self, storage: Storage, name: str, schema: pa.Schema) -> None:
        self._where = f"{storage.url}/{name}"
        opened = storage.open(name)
        with damage_errors(self._where, REMEDY):
            self._file = pq.ParquetFile(opened, pre_buffer=False)
            _check_types(self._file.schema_arrow, schema)
        metadata = self._file.metadata
        self._group_ends: list[int] = []
        for i in range(metadata.num_row_groups):
            self._group_ends.append((self._group_ends[-1] if i else 0) + metadata.row_group(i).num_rows)
        self._held: tuple[int, pa.Table] = (-1, pa.table({}))

    def rows(self, first: int, count: int) -> Iterable[dict[str, Any]]:
        """Read `count` rows from row `first` on."""
        done = 0
        while done < count:
            with damage_errors(self._where, REMEDY):
                rows = self._rows_of_group(first + done, count - done)
            yield from rows
            done += len(rows)

    def _rows_of_group(self, first: int, count: int) -> list[dict[str, Any]]:
        """Read rows up to the end of the row group that holds row `first`."""
        group = next((i for i, end in enumerate(self._group_ends) if first < end), None)
        if group is None or first < 0:
            raise ValueError(f"it has no row {first}")
        start = self._group_ends[group - 1] if group else 0
        if self._held[0] != group:
            table = self._file.read_row_group(group, use_threads=False)
            table.validate(full=True)
            self._held = (group, table)
        found: list[dict[str, Any]] = self._held[1].slice(first - start, count).to_pylist()
        return found


def _check_types(found: pa.Schema, expected: pa.Schema) -> None:
    for name in found.names:
        place = found.get_field_index(name)
        if place < 0:
            raise ValueError(f"it has several columns {name!r}")
        if name in expected.names and not found.field(place).type.equals(expected.field(name).type):
            raise ValueError(f"its column {name!r} has the type {found.field(place).type}")
