"""Texts in Parquet or JSON lines, row by row.

A source may be a range of a file's bytes. A line belongs to the range that holds its first byte; for rows of Parquet
see `row_ranges`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from codectok.errors import InputError, Reason

from .opening import open_parquet, open_source
from .row_ranges import batches_between, rows_in_range
from .source import Source

TEXT_COLUMN, ID_COLUMN = "text", "id"
OTHER_COLUMNS = ("language", "speaker", "category", "source")


@dataclass(frozen=True)
class TextRow:
    """A row of a text source.

    Attributes:
        id: of the row, or its place in the file.
        text: None if the row has no usable text.
        problem: why it has no text; `reason` is the reason of its reject.
        fields: language, speaker, category and source, if known, for templates.
    """

    id: str
    text: str | None
    problem: str = ""
    reason: Reason = "unreadable"
    fields: Mapping[str, str] = field(default_factory=dict)


def text_rows(source: Source) -> Iterator[TextRow]:
    """Yield the rows that begin in a range of a Parquet file with a column `text`, or of JSON lines with that key.

    Raises:
        InputError: the file cannot be read, or has no column `text`.
    """
    return _texts_of_lines(source) if source.kind == "lines" else _texts_of_parquet(source)


def _texts_of_parquet(source: Source) -> Iterator[TextRow]:
    with open_parquet(source) as file:
        names = file.schema_arrow.names
        if TEXT_COLUMN not in names:
            raise InputError(f"{source.where} has no column {TEXT_COLUMN!r}.")
        columns = [name for name in (ID_COLUMN, TEXT_COLUMN, *OTHER_COLUMNS) if name in names]
        wanted = rows_in_range(source, file.metadata.num_rows)
        for first, batch in batches_between(file, wanted.start, wanted.stop, columns):
            for number, row in enumerate(batch.to_pylist(), start=first):
                yield _text_row(row, f"{source.name}:{number}")


def _texts_of_lines(source: Source) -> Iterator[TextRow]:
    with open_source(source) as file:
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
        return TextRow(name, None, "It is not a JSON object.")
    row_id, text = row.get(ID_COLUMN), row.get(TEXT_COLUMN)
    if isinstance(row_id, int) or (isinstance(row_id, str) and _is_unicode(row_id)):
        name = str(row_id)
    if text is None:
        return TextRow(name, None, f"It has no {TEXT_COLUMN!r}.", "filtered")
    if not isinstance(text, str):
        return TextRow(name, None, f"Its {TEXT_COLUMN!r} is not a string.")
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
        found: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found
