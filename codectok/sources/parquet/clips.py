"""Clips of Parquet files, as Hugging Face datasets and others write them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from codectok.errors import AudioError, first_line
from codectok.keys import make_key
from codectok.parquet_damage import PARQUET_DAMAGE
from codectok.reading import fault_of, reading
from codectok.sources.clip import Clip
from codectok.sources.kinds import suffix_of
from codectok.sources.labels import described_by
from codectok.sources.opening import open_source
from codectok.sources.rejects import Reject
from codectok.sources.source import Source
from codectok.sources.unused import Unused

from .choice import choose_column
from .columns import Column
from .rows import (
    BUFFER_BYTES,
    RowColumns,
    RowGroup,
    batches_of,
    first_values,
    groups_in_range,
    other_columns,
    scalar_at,
    values_at,
)
from .values import audio_of_row, parts_of

# Of Arrow, and of values that Python cannot hold, such as times behind the year 9999.
DAMAGE = (pa.ArrowException, ValueError, OverflowError)


def clips_of_parquet(source: Source) -> Iterator[Clip | Reject | Unused]:
    """Yield a clip for each row of the row groups that begin in the source's range, and columns that are not read.

    A file without audio is an unused part of the kind "ignored_files".
    """
    try:
        with (
            open_source(source) as opened,
            pq.ParquetFile(opened, pre_buffer=False, buffer_size=BUFFER_BYTES) as file,
        ):
            try:
                column = _audio_column(file, opened, source)
            except AudioError as error:
                if not source.first_byte:  # once for all ranges
                    yield Reject.in_container(error, source)
                return
            if column is None:
                if not source.first_byte:
                    columns = ", ".join(file.schema_arrow.names)
                    example = f"{source.name} (no audio in its columns {columns})"
                    yield Unused("ignored_files", suffix_of(source.path), example=example)
                return
            others, groups = other_columns(file, column), groups_in_range(file, source)
            n_rows = sum(group.n_rows for group in groups)
            for name in others.unused if n_rows else ():
                yield Unused("columns", name, n_rows, source.name)
            for group in groups:
                yield from _clips_of_group(file, opened, source, group, column, others)
    except AudioError as error:
        yield Reject.in_container(error, source)
    except (OSError, *PARQUET_DAMAGE) as error:
        fault = fault_of(error, source.where, DAMAGE)
        message = f"The Parquet file {source.where} cannot be read: {first_line(error)}."
        yield Reject.in_container(AudioError(message, fault.reason), source)


def _audio_column(file: pq.ParquetFile, opened: BinaryIO, source: Source) -> Column | None:
    def start_of(column: Column) -> tuple[bytes | None, str | None]:
        parts = map(parts_of, first_values(file, opened, column, source.max_row_bytes))
        return next((found for found in parts if found != (None, None)), (None, None))

    return choose_column(file.schema_arrow, source.audio_column, source.where, cache(start_of))


def _clips_of_group(
    file: pq.ParquetFile, opened: BinaryIO, source: Source, group: RowGroup, column: Column, others: RowColumns
) -> Iterator[Clip | Reject | Unused]:
    """Yield the clips of a row group; damage costs the rest of the group."""
    number = group.first_row
    names = [column.name, *(".".join(path) for path in others.labels)]
    batches = batches_of(file, opened, group, names, source.max_row_bytes)
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:
            fault = fault_of(error, source.where, DAMAGE)
            last = group.first_row + group.n_rows - 1
            message = f"Rows {number} to {last} of {source.where} cannot be read: {first_line(error)}."
            yield Reject.in_container(AudioError(message, fault.reason), source, str(number))
            return
        if batch is None:
            return
        yield from _clips_of_batch(source, number, batch, column, others)
        number += len(batch)


def _clips_of_batch(
    source: Source, number: int, batch: pa.RecordBatch, column: Column, others: RowColumns
) -> Iterator[Clip | Reject | Unused]:
    """Yield the clips of a batch; if a value in it cannot be read, one row at a time, so that its row alone is lost."""
    try:
        with reading(source.where, DAMAGE):
            rows = list(_rows(batch, column, others))
    except AudioError as error:
        if len(batch) == 1:
            yield Reject.in_container(error, source, str(number))
            return
        for row in range(len(batch)):
            yield from _clips_of_batch(source, number + row, batch.slice(row, 1), column, others)
        return
    for row, (value, labels) in enumerate(rows, start=number):
        yield from _clip(source, row, column, value, labels)


def _rows(batch: pa.RecordBatch, column: Column, others: RowColumns) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the value of the audio column, and the labels by name, for each row."""
    names = others.label_names
    labels = [values_at(batch, path) for path in others.labels]
    # Lists of samples stay in Arrow's memory, since a Python number for each would take several times as much.
    decoded = column.form == "samples"
    values = () if decoded else values_at(batch, column.path)
    for row in range(len(batch)):
        value = scalar_at(batch, row, column.path) if decoded else values[row]
        yield value, {name: found[row] for name, found in zip(names, labels, strict=True)}


def _clip(
    source: Source, number: int, column: Column, value: Any, labels: dict[str, Any]
) -> Iterator[Clip | Reject | Unused]:
    where = f"Row {number} of {source.where}"
    try:
        with reading(where, DAMAGE):
            found = audio_of_row(value, column, source, number, labels)
            span, left_out = described_by(labels, where)
    except AudioError as error:
        yield Reject.in_container(error, source, str(number))
        return
    yield from (Unused("columns", name, example=where) for name in left_out)
    clip_id = make_key(source.dataset, f"{source.path}/{number}")
    yield Clip(clip_id, found.audio, source.dataset, f"{source.name}/{number}{found.suffix}", span)
