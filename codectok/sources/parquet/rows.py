"""Rows of a Parquet file, some megabytes at a time, with the columns that are used."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from codectok.errors import AudioError
from codectok.sources.source import Source

from .columns import AUDIO_FEATURE, Column, columns_of, holds_binary, plain_type
from .pages import rows_at_once

# Rows are read in batches of about this size, at least one and at most `BATCH_ROWS`. Arrow holds a page beside them.
BATCH_BYTES = 1 << 22
BATCH_ROWS = 64
# Column chunks are read in pieces of this size; without it, Arrow reads each as a whole.
BUFFER_BYTES = 1 << 20
# Columns with longer values, such as embeddings of many frames, are not labels.
LONGEST_LABEL_BYTES = 1 << 16
# Rows without a value that are read in search of the first one.
SEARCHED_ROWS = 4096


@dataclass(frozen=True)
class RowColumns:
    """Columns to read beside the audio.

    Attributes:
        labels: path of each column that describes the audio.
        unused: names of columns that are not read.
    """

    labels: Sequence[tuple[str, ...]] = field(default_factory=list)
    unused: Sequence[str] = field(default_factory=list)

    @property
    def label_names(self) -> list[str]:
        """Name of each label: its last one, or all its names with dots if a label above it has the same last one."""
        shallowest = {path[-1]: path for path in sorted(self.labels, key=len, reverse=True)}
        return [path[-1] if shallowest[path[-1]] == path else ".".join(path) for path in self.labels]


def other_columns(file: pq.ParquetFile, audio: Column) -> RowColumns:
    """Sort the columns beside `audio` into labels, and columns with audio, bytes or long values."""
    schema = file.schema_arrow
    decoded = {
        column.path
        for column in columns_of(schema)
        if column.form in ("samples", "files") and (column.is_named or column.feature == AUDIO_FEATURE)
    }
    sizes = _chunk_sizes(file, range(file.num_row_groups))
    longest = LONGEST_LABEL_BYTES * file.metadata.num_rows
    labels: list[tuple[str, ...]] = []
    unused: list[str] = []

    def sort(field: pa.Field, above: tuple[str, ...]) -> None:
        path = (*above, field.name)
        name = ".".join(path)
        if audio.path[: len(path)] == path:
            kind = plain_type(field.type)
            for i in range(0 if path == audio.path else kind.num_fields):
                sort(kind.field(i), path)
        elif path in decoded or holds_binary(field.type) or _size_of(sizes, [name]) > longest:
            unused.append(name)
        else:
            labels.append(path)

    for column in schema:
        sort(column, ())
    return RowColumns(labels, unused)


@dataclass(frozen=True)
class RowGroup:
    """A row group, and the number of its first row in the file."""

    number: int
    first_row: int
    n_rows: int


def groups_in_range(file: pq.ParquetFile, source: Source) -> list[RowGroup]:
    """Return the row groups that begin in the range of a source."""
    found, first_row = [], 0
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        if (source.first_byte or 0) <= _first_page(group) < (source.last_byte or float("inf")):
            found.append(RowGroup(number, first_row, group.num_rows))
        first_row += group.num_rows
    return found


def batches_of(
    file: pq.ParquetFile, opened: BinaryIO, group: RowGroup, columns: list[str], max_bytes: int
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a group in small batches; raises `AudioError` if a page is larger than `max_bytes`."""
    most = rows_at_once(file, opened, group.number, columns, max_bytes)
    per_row = _size_of(_chunk_sizes(file, [group.number]), columns) / max(1, group.n_rows)
    rows = max(1, min(BATCH_ROWS, most, int(BATCH_BYTES // max(1.0, per_row))))
    yield from file.iter_batches(rows, row_groups=[group.number], columns=columns, use_threads=False)


def first_values(file: pq.ParquetFile, opened: BinaryIO, column: Column, max_bytes: int) -> Iterator[Any]:
    """Yield the values of a column that are not null, among the first rows."""
    batches = itertools.chain.from_iterable(
        file.iter_batches(1, row_groups=[group], columns=[column.name], use_threads=False)
        for group in range(file.num_row_groups)
        if _is_readable(file, opened, group, column, max_bytes)
    )
    for batch in itertools.islice(batches, SEARCHED_ROWS):
        value = values_at(batch, column.path)[0]
        if value is not None:
            yield value


def _is_readable(file: pq.ParquetFile, opened: BinaryIO, group: int, column: Column, max_bytes: int) -> bool:
    try:
        return rows_at_once(file, opened, group, [column.name], max_bytes) > 0
    except AudioError:
        return False  # its rows become rejects


def values_at(batch: pa.RecordBatch, path: Sequence[str]) -> list[Any]:
    """Return the values of a column, or of a field of a struct, as Python objects; None for null."""
    values: list[Any] = batch.column(batch.schema.names.index(path[0])).to_pylist()
    for name in path[1:]:
        values = [None if value is None else value[name] for value in values]
    return values


def scalar_at(batch: pa.RecordBatch, row: int, path: Sequence[str]) -> pa.Scalar | None:
    """Return the value in a row like `values_at`, but still in Arrow's memory."""
    value = batch.column(batch.schema.names.index(path[0]))[row]
    for name in [*path[1:], None]:
        value = plain_scalar(value)
        if not value.is_valid:
            return None
        if name is not None:
            value = value[name]
    return value


def plain_scalar(value: pa.Scalar) -> pa.Scalar:
    """Return the value of a dictionary or an extension type; other scalars are returned as they are."""
    while isinstance(value, pa.DictionaryScalar | pa.ExtensionScalar):
        value = value.value
        if value is None:
            return pa.scalar(None)
    return value


def _first_page(group: pq.RowGroupMetaData) -> int:
    """Offset of a row group's data."""
    columns = [group.column(i) for i in range(group.num_columns)]
    pages = [page for column in columns for page in (column.dictionary_page_offset, column.data_page_offset) if page]
    return min(pages, default=0)


def _chunk_sizes(file: pq.ParquetFile, groups: Iterable[int]) -> Counter[str]:
    """Return the size of each leaf column by the file's metadata, which decides nothing but speed and memory."""
    sizes: Counter[str] = Counter()
    for number in groups:
        group = file.metadata.row_group(number)
        for i in range(group.num_columns):
            chunk = group.column(i)
            sizes[chunk.path_in_schema] += chunk.total_uncompressed_size
    return sizes


def _size_of(sizes: Mapping[str, int], columns: Sequence[str]) -> int:
    """Return the size of columns with all their fields."""
    starts = tuple(f"{name}." for name in columns)
    return sum(size for name, size in sizes.items() if name in columns or name.startswith(starts))
