"""Clips of Parquet files, as Hugging Face datasets and others write them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codectok.errors import AudioError, first_line, is_lasting
from codectok.keys import make_key
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
    plain_scalar,
    value_at,
)
from .values import audio_of_row, parts_of


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
                column = _audio_column(file, source)
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
                yield from _clips_of_group(file, source, group, column, others)
    except AudioError as error:
        yield Reject.in_container(error, source)
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and not is_lasting(error):
            raise
        message = f"The Parquet file {source.where} cannot be read: {first_line(error)}."
        yield Reject.in_container(AudioError(message, "unreadable"), source)


def _audio_column(file: pq.ParquetFile, source: Source) -> Column | None:
    def start_of(column: Column) -> tuple[bytes | None, str | None]:
        parts = map(parts_of, first_values(file, column))
        return next((found for found in parts if found != (None, None)), (None, None))

    return choose_column(file.schema_arrow, source.audio_column, source.where, cache(start_of))


def _clips_of_group(
    file: pq.ParquetFile, source: Source, group: RowGroup, column: Column, others: RowColumns
) -> Iterator[Clip | Reject | Unused]:
    """Yield the clips of a row group; damage costs the rest of the group."""
    number = group.first_row
    names = [column.name, *(".".join(path) for path in others.labels)]
    batches = batches_of(file, group, names)
    while True:
        try:
            batch = next(batches, None)
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, OSError) and not is_lasting(error):
                raise
            last = group.first_row + group.n_rows - 1
            message = f"Rows {number} to {last} of {source.where} cannot be read: {first_line(error)}."
            yield Reject.in_container(AudioError(message, "unreadable"), source, str(number))
            return
        if batch is None:
            return
        for row in range(len(batch)):
            yield from _clip(source, number, batch, row, column, others)
            number += 1


def _clip(
    source: Source, number: int, batch: pa.RecordBatch, row: int, column: Column, others: RowColumns
) -> Iterator[Clip | Reject | Unused]:
    labels = cache(partial(_labels, batch, row, others))
    where = f"Row {number} of {source.where}"
    try:
        found = audio_of_row(value_at(batch, row, column.path), column, source, number, labels)
        span, left_out = described_by(labels(), where)
    except AudioError as error:
        yield Reject.in_container(error, source, str(number))
        return
    yield from (Unused("columns", name, example=where) for name in left_out)
    clip_id = make_key(source.dataset, f"{source.path}/{number}")
    yield Clip(clip_id, found.audio, source.dataset, f"{source.name}/{number}{found.suffix}", span)


def _labels(batch: pa.RecordBatch, row: int, others: RowColumns) -> dict[str, Any]:
    found = ((path[-1], value_at(batch, row, path)) for path in others.labels)
    return {name: None if value is None else plain_scalar(value).as_py() for name, value in found}
