"""Texts in Parquet or JSON lines, row by row.

A source may be a range of a file's bytes; see `line_ranges` and `row_ranges`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from codectok.errors import AudioError, InputError, Reason
from codectok.extras import is_missing, text_of_label
from codectok.reading import reading

from .encodings import UndecodableError
from .labels import columns_of
from .line_ranges import lines_in_range
from .opening import open_parquet
from .row_ranges import batches_between, rows_in_range
from .source import Source

OTHER_FIELDS = ("language", "speaker", "category")


@dataclass(frozen=True)
class TextRow:
    """A row of a text source.

    Attributes:
        id: of the row, or its place in the file.
        text: None if the row has no usable text.
        problem: why it has no text; `reason` is the reason of its reject.
        fields: language, speaker, category and source, if known, for templates; others as "extra.NAME".
    """

    id: str
    text: str | None
    problem: str = ""
    reason: Reason = "unreadable"
    fields: Mapping[str, str] = field(default_factory=dict)


def text_rows(source: Source, extra: Collection[str] = ()) -> Iterator[TextRow]:
    """Yield the rows that begin in a range of a Parquet file with a column of text, or of JSON lines with that key.

    Args:
        source: the range.
        extra: names of further columns or keys that templates need.

    Raises:
        InputError: the file cannot be read, or has no column of text.
    """
    return _texts_of_lines(source, extra) if source.kind == "lines" else _texts_of_parquet(source, extra)


def _texts_of_parquet(source: Source, extra: Collection[str]) -> Iterator[TextRow]:
    with open_parquet(source) as file:
        names = file.schema_arrow.names
        known = columns_of(tuple(names))
        if not known.get("text"):
            raise InputError(f"{source.where} has no column 'text'.")
        wanted_names = {name for field in ("id", "text", *OTHER_FIELDS) for name in known.get(field, ())}
        columns = [name for name in names if name in wanted_names or name == "source" or name in extra]
        wanted = rows_in_range(source, file.metadata.num_rows)
        for first, batch in batches_between(file, wanted.start, wanted.stop, columns):
            for number, row in enumerate(batch.to_pylist(), start=first):
                yield _usable_row(row, f"{source.name}:{number}", extra)


def _texts_of_lines(source: Source, extra: Collection[str]) -> Iterator[TextRow]:
    try:
        for position, line in lines_in_range(source):
            if line.strip():
                yield _usable_row(_json(line), f"{source.name}:{position}", extra)
    except UndecodableError as error:
        raise InputError(f"{source.where} cannot be read: {error}.") from None


def _usable_row(row: object, name: str, extra: Collection[str]) -> TextRow:
    """The row with these values; a fault in them costs this row only."""
    try:
        with reading(name):
            return _text_row(row, name, extra)
    except AudioError as error:
        return TextRow(name, None, str(error), error.reason)


def _text_row(row: object, name: str, extra: Collection[str]) -> TextRow:
    if not isinstance(row, dict):
        return TextRow(name, None, "It is not a JSON object.")
    known = columns_of(tuple(row))
    for key in known.get("id", ()):
        if isinstance(row[key], int) or (isinstance(row[key], str) and _is_unicode(row[key])):
            name = str(row[key])
            break
    keys = [key for key in known.get("text", ()) if row[key] is not None]
    if not keys:
        return TextRow(name, None, "It has no 'text'.", "filtered")
    key = next((key for key in keys if not is_missing(row[key])), keys[0])
    text = row[key]
    if not isinstance(text, str):
        return TextRow(name, None, f"Its {key!r} is not a string.")
    if not _is_unicode(text):
        return TextRow(name, None, f"Its {key!r} has half a character (a lone surrogate).")
    fields = {
        field: next((row[key] for key in known.get(field, ()) if isinstance(row[key], str) and row[key]), None)
        for field in OTHER_FIELDS
    }
    fields["source"] = row["source"] if isinstance(row.get("source"), str) else None
    fields |= {f"extra.{name}": text_of_label(row.get(name)) for name in extra}
    return TextRow(name, text, fields={field: value for field, value in fields.items() if value and _is_unicode(value)})


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
