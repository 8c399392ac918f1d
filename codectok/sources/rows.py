"""Reading sources row by row: token tables, and text in Parquet or JSON lines.

A source is a range of a file's bytes. A line belongs to the range in which its first byte lies; row r of n of a Parquet
file of s bytes counts as beginning at byte s * r // n, so that ranges share its rows evenly.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from codectok.errors import InputError, first_line
from codectok.storage import open_file_system
from codectok.tokens.table import TableMetadata, TokenRow, metadata_of_schema, rows_of_batch, table_schema

from .rejects import Reason
from .source import Source

BATCH_ROWS = 1024
TEXT_COLUMN, ID_COLUMN = "text", "id"
OTHER_COLUMNS = ("language", "speaker", "category", "source")


@dataclass(frozen=True)
class TextRow:
    """A text; None where there is none that can be used: `problem` says why, and `reason` as what it is rejected.

    `fields` has what else is said of it and templates may ask for: its language, speaker, category and source.
    """

    id: str
    text: str | None
    problem: str = ""
    reason: Reason = "unreadable"
    fields: Mapping[str, str] = field(default_factory=dict)


def table_metadata(source: Source) -> TableMetadata:
    """What the codes of a token table's file are; `InputError` if it is none."""
    with open_parquet(source) as file:
        return metadata_of_schema(file.schema_arrow, source.where)


def token_rows(source: Source, metadata: TableMetadata) -> Iterator[TokenRow]:
    """The rows that begin in a range of a token table's file.

    Raises:
        InputError: no token table, one of another codec than `metadata` says, or a damaged file.
    """
    with open_parquet(source) as file:
        _check_codec(file, source, metadata)
        wanted = _wanted_rows(source, file.metadata.num_rows)
        for _, row in _rows_from(file, wanted.start, wanted.stop, metadata):
            yield row


def row_by_id(source: Source, metadata: TableMetadata, row_id: str) -> TokenRow | None:
    """The row of that id in a token table's file, if it is there; of the others only ids are read."""
    with open_parquet(source) as file:
        _check_codec(file, source, metadata)
        for first, batch in _batches(file, 0, file.metadata.num_rows, ["id"]):
            place = pc.index(batch["id"], row_id).as_py()
            if place >= 0:
                return next(_rows_from(file, first + place, first + place + 1, metadata))[1]
    return None


def recordings_in(
    source: Source, metadata: TableMetadata, before: Iterable[Source] = (), after: Iterable[Source] = ()
) -> Iterator[Iterator[TokenRow]]:
    """Neighbouring rows of one recording, all of them where the first begins in a range of a token table's file.

    Args:
        source: the range.
        metadata: of the table.
        before: files of the table before this one, the nearest first: what begins there is not given again.
        after: files behind this one, in which the last recording may go on.
    """
    with open_parquet(source) as file:
        _check_codec(file, source, metadata)
        n_rows = file.metadata.num_rows
        wanted = _wanted_rows(source, n_rows)
        if not wanted:
            return
        rows = itertools.chain(
            _rows_from(file, max(0, wanted.start - 1), n_rows, metadata),
            ((n_rows, row) for other in after for row in token_rows(other, metadata)),
        )
        going_on = _last_recording(before) if wanted.start == 0 else None
        groups = itertools.groupby(rows, key=lambda numbered: (numbered[1].dataset, numbered[1].source))
        for recording, group in groups:
            number, first = next(group)
            if number >= wanted.stop:
                return
            if number in wanted and not (number == 0 and recording == going_on):
                yield itertools.chain([first], (row for _, row in group))


def _last_recording(files: Iterable[Source]) -> tuple[str, str] | None:
    """Dataset and source of the last row in the first of `files` that has rows."""
    for source in files:
        with open_parquet(source) as file:
            n_rows = file.metadata.num_rows
            for _, batch in _batches(file, n_rows - 1, n_rows, ["dataset", "source"]):
                row = batch.to_pylist()[0]
                return row["dataset"], row["source"]
    return None


def text_rows(source: Source) -> Iterator[TextRow]:
    """The texts that begin in a range of a Parquet file with a column `text`, or of JSON lines with a key `text`."""
    return _texts_of_lines(source) if source.kind == "lines" else _texts_of_parquet(source)


def _texts_of_parquet(source: Source) -> Iterator[TextRow]:
    with open_parquet(source) as file:
        names = file.schema_arrow.names
        if TEXT_COLUMN not in names:
            raise InputError(f"{source.where} has no column {TEXT_COLUMN!r}.")
        columns = [name for name in (ID_COLUMN, TEXT_COLUMN, *OTHER_COLUMNS) if name in names]
        wanted = _wanted_rows(source, file.metadata.num_rows)
        for first, batch in _batches(file, wanted.start, wanted.stop, columns):
            for number, row in enumerate(batch.to_pylist(), start=first):
                yield _text_row(row, f"{source.name}:{number}")


def _texts_of_lines(source: Source) -> Iterator[TextRow]:
    with _opened(source) as file:
        position, end = source.first_byte or 0, source.last_byte
        if position:
            file.seek(position - 1)
            position += len(file.readline()) - 1  # the rest of a line that begins before
        while (end is None or position < end) and (line := file.readline()):
            name = f"{source.name}:{position}"
            position += len(line)
            if line.strip():
                yield _text_row(_json(line), name)


def _text_row(row: object, name: str) -> TextRow:
    if not isinstance(row, dict):
        return TextRow(name, None, "It is no JSON object.")
    row_id, text = row.get(ID_COLUMN), row.get(TEXT_COLUMN)
    if isinstance(row_id, int) or (isinstance(row_id, str) and _is_unicode(row_id)):
        name = str(row_id)
    if text is None:
        return TextRow(name, None, f"It has no {TEXT_COLUMN!r}.", "filtered")
    if not isinstance(text, str):
        return TextRow(name, None, f"Its {TEXT_COLUMN!r} is no string.")
    if not _is_unicode(text):
        return TextRow(name, None, f"Its {TEXT_COLUMN!r} has half a character (a lone surrogate).")
    others = {column: row[column] for column in OTHER_COLUMNS if isinstance(row.get(column), str)}
    return TextRow(name, text, fields={column: value for column, value in others.items() if _is_unicode(value)})


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _wanted_rows(source: Source, n_rows: int) -> range:
    if source.first_byte is None or source.last_byte is None or not source.size:
        return range(n_rows)
    return range(-(-source.first_byte * n_rows // source.size), -(-source.last_byte * n_rows // source.size))


def _check_codec(file: pq.ParquetFile, source: Source, metadata: TableMetadata) -> None:
    found = metadata_of_schema(file.schema_arrow, source.where)
    if found.codec_fingerprint != metadata.codec_fingerprint:
        raise InputError(
            f"{source.where} holds codes of {found.label}, others of {metadata.label}; keep the tables of different"
            " codecs apart."
        )


def _rows_from(file: pq.ParquetFile, start: int, stop: int, metadata: TableMetadata) -> Iterator[tuple[int, TokenRow]]:
    # By name: users may have added columns of their own.
    for first, batch in _batches(file, start, stop, table_schema(metadata).names):
        yield from enumerate(rows_of_batch(batch, metadata), start=first)


def _batches(file: pq.ParquetFile, start: int, stop: int, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows from `start` to before `stop`, with the number of each batch's first row."""
    first = 0
    for group in range(file.num_row_groups):
        end = first + file.metadata.row_group(group).num_rows
        if first < stop and end > start:
            number = first
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns):
                skipped = max(0, start - number)
                part = batch.slice(skipped, max(0, min(stop, number + len(batch)) - number - skipped))
                if len(part):
                    yield number + skipped, part
                number += len(batch)
        first = end


@contextmanager
def open_parquet(source: Source) -> Iterator[pq.ParquetFile]:
    """Open a file that has not changed since it was listed.

    Raises:
        InputError: it is no Parquet, or damaged where it is read while the context lasts.
    """
    try:
        with _opened(source) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            yield file
    except pa.ArrowException as error:
        reason = first_line(error)
        raise InputError(f"{source.where} cannot be read as Parquet: {reason}") from None


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    source.check_unchanged()
    if source.url is None:
        with source.location.open("rb") as file:
            yield file
    else:
        files, path = open_file_system(source.url)
        with files.open(path, "rb") as file:
            yield file
