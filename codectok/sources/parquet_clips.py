"""Clips of Parquet files, as Hugging Face datasets write them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codectok.errors import AudioError, first_line
from codectok.keys import make_key

from .clip import Clip
from .labels import span_of
from .opening import open_source
from .rejects import Reject
from .source import Source

BATCH_ROWS = 32


def clips_of_parquet(source: Source) -> Iterator[Clip | Reject | None]:
    """Yield a clip for each row of the row groups that begin in the source's range; None for a file without audio."""
    try:
        with open_source(source) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            column = _audio_column(file.schema_arrow)
            if column is None:
                yield None
                return
            for group in range(file.num_row_groups):
                begins = _first_page(file.metadata.row_group(group))
                if not (source.first_byte or 0) <= begins < (source.last_byte or float("inf")):
                    continue
                first = sum(file.metadata.row_group(i).num_rows for i in range(group))
                batches = file.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False)
                rows = (row for batch in batches for row in batch.to_pylist())
                for number, row in enumerate(rows, start=first):
                    yield _clip(source, number, row, column)
    except AudioError as error:
        yield Reject.in_container(error, source)
    except (OSError, pa.ArrowException) as error:
        reason = first_line(error)
        message = f"The Parquet file {source.where} cannot be read: {reason}."
        yield Reject.in_container(AudioError(message, "unreadable"), source)


def _first_page(group: pq.RowGroupMetaData) -> int:
    """Offset of a row group's data."""
    columns = [group.column(i) for i in range(group.num_columns)]
    pages = [page for column in columns for page in (column.dictionary_page_offset, column.data_page_offset) if page]
    return min(pages, default=0)


def _clip(source: Source, number: int, row: dict[str, Any], column: str) -> Clip | Reject:
    value = row.pop(column)
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    name = f"{source.name}/{number}"
    if data is None and path is not None and source.url is None:
        beside = source.location.parent / path
        data = beside if beside.is_file() else None
    if data is None:
        message = f"Row {number} of {source.where} has no audio."
        return Reject.in_container(AudioError(message, "empty"), source, str(number))
    suffix = PurePosixPath(path).suffix if path else ""
    clip_id = make_key(source.dataset, f"{source.path}/{number}")
    try:
        span = span_of(row, f"Row {number} of {source.where}")
    except AudioError as error:
        return Reject.in_container(error, source, str(number))
    return Clip(clip_id, data, source.dataset, f"{name}{suffix}", span)


def _audio_column(schema: pa.Schema) -> str | None:
    names: list[str] = schema.names
    for name, kind in zip(names, schema.types, strict=True):
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return name
    for name, kind in zip(names, schema.types, strict=True):
        if name == "audio" and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            return name
    return None
