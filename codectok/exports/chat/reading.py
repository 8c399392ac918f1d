"""Conversations in JSON lines or Parquet, row by row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from codectok.errors import AudioError, InputError, Reason
from codectok.reading import reading
from codectok.sources.encodings import UndecodableError
from codectok.sources.line_ranges import lines_in_range
from codectok.sources.opening import open_parquet
from codectok.sources.row_ranges import batches_between, rows_in_range
from codectok.sources.source import Source

from .conversations import LIST_KEYS, Conversation, ConversationError, conversation_of_messages
from .unitts_dialogs import DIALOG_KEYS, conversation_of_dialog

MESSAGES = "messages"
COLUMNS = ("id", MESSAGES, *DIALOG_KEYS, "tools", *LIST_KEYS)


@dataclass(frozen=True)
class ConversationRow:
    """A row of a source of conversations.

    Attributes:
        id: of the row, or its place in the file.
        conversation: None if the row has no usable one.
        problem: why it has none; `reason` is the reason of its reject.
    """

    id: str
    conversation: Conversation | None
    problem: str = ""
    reason: Reason = "filtered"


def conversation_rows(source: Source) -> Iterator[ConversationRow]:
    """Yield the rows that begin in a range of a file.

    Raises:
        InputError: the file cannot be read, or is Parquet without a column of conversations.
    """
    return _rows_of_lines(source) if source.kind == "lines" else _rows_of_parquet(source)


def _rows_of_lines(source: Source) -> Iterator[ConversationRow]:
    try:
        for position, line in lines_in_range(source):
            if line.strip():
                yield _row(line, f"{source.name}:{position}")
    except UndecodableError as error:
        raise InputError(f"{source.where} cannot be read: {error}.") from None


def _rows_of_parquet(source: Source) -> Iterator[ConversationRow]:
    with open_parquet(source) as file:
        columns = [name for name in file.schema_arrow.names if name in COLUMNS]
        if not {MESSAGES, *DIALOG_KEYS}.intersection(columns):
            raise InputError(f"{source.where} has no column {MESSAGES!r} or {DIALOG_KEYS[0]!r}.")
        wanted = rows_in_range(source, file.metadata.num_rows)
        for first, batch in batches_between(file, wanted.start, wanted.stop, columns):
            for number, row in enumerate(batch.to_pylist(), start=first):
                yield _row(row, f"{source.name}:{number}")


def _row(data: bytes | Mapping[str, Any], name: str) -> ConversationRow:
    """Read a row; a fault in it costs this row only."""
    try:
        with reading(name):
            row = _json(data) if isinstance(data, bytes) else data
            if not isinstance(row, dict):
                return ConversationRow(name, None, "It is not a JSON object.", "unreadable")
            name = _name_of(row, name)
            return ConversationRow(name, _conversation(row))
    except AudioError as error:
        return ConversationRow(name, None, str(error), error.reason)


def _conversation(row: Mapping[str, Any]) -> Conversation:
    try:
        if row.get(MESSAGES) is not None:
            return conversation_of_messages(row)
        if any(row.get(key) is not None for key in DIALOG_KEYS):
            return conversation_of_dialog(row)
        raise ConversationError(f"It has neither {MESSAGES!r} nor {DIALOG_KEYS[0]!r}.")
    except ConversationError as error:
        raise AudioError(str(error), "filtered") from None


def _name_of(row: Mapping[str, Any], name: str) -> str:
    found = row.get("id")
    if not isinstance(found, str | int) or isinstance(found, bool) or found == "":
        return name
    try:
        str(found).encode()
    except UnicodeEncodeError:
        return name
    return str(found)


def _json(line: bytes) -> object:
    try:
        found: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found
