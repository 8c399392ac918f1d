"""JSON lines of codes: an object with codes, key and labels in each."""

from __future__ import annotations

import json
from collections.abc import Iterator

from codectok.errors import AudioError
from codectok.reading import reading
from codectok.sources.encodings import UndecodableError
from codectok.sources.line_ranges import lines_in_range
from codectok.sources.source import Source

from .rows import FieldNames, ForeignRow
from .shapes import array_of


def rows_of_lines(source: Source, names: FieldNames) -> Iterator[ForeignRow]:
    """Yield the rows of the lines that begin in the source's range."""
    position = source.first_byte or 0
    try:
        with reading(source.where):
            for position, line in lines_in_range(source):
                if line.strip():
                    yield _row(line, position, names)
    except (AudioError, UndecodableError) as error:
        fault = error if isinstance(error, AudioError) else AudioError(f"{source.where}: {error}.", "unreadable")
        yield ForeignRow(str(position), None, fault)


def _row(line: bytes, position: int, names: FieldNames) -> ForeignRow:
    where, key = f"The line at byte {position}", None
    try:
        with reading(where):
            try:
                value: object = json.loads(line)
            except ValueError:
                raise AudioError(f"{where} is not valid JSON.", "invalid_row") from None
            if not isinstance(value, dict):
                raise AudioError(f"{where} is not a JSON object.", "invalid_row")
            codes = value.pop(names.codes_in(list(value)))
            span, left_out = names.span_of(value, where)
            key = span.id
            return ForeignRow(str(position), key, array_of(codes), span=span, left_out=left_out)
    except AudioError as error:
        return ForeignRow(str(position), key, error)
