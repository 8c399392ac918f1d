"""Quotation marks in the cells of tables, by the rules of RFC 4180."""

from __future__ import annotations


class MalformedError(ValueError):
    """Quotation marks that do not pair; the message is the end of a sentence."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}; put a cell with quotation marks in quotation marks and write its own ones twice")


class UnclosedError(MalformedError):
    """A quotation mark opens a cell that does not end in the row."""


def split_record(record: str, separator: str, spaced: bool) -> list[str]:
    """Split a row into its cells.

    A cell that begins with a quotation mark ends at the next one; two stand for one in its text. Within other cells
    quotation marks are text. With `spaced`, blanks before a cell are dropped.

    Raises:
        UnclosedError: the last cell begins with a quotation mark and has no end.
        MalformedError: a cell goes on behind its closing quotation mark.
    """
    cells: list[str] = []
    place = 0
    while True:
        if spaced:
            place = _after_blanks(record, place)
        if record[place : place + 1] == '"':
            text, place = _quoted(record, place)
            if spaced:
                place = _after_blanks(record, place)
            if place < len(record) and record[place] != separator:
                raise MalformedError(f"its cell {len(cells) + 1} goes on behind its closing quotation mark")
        else:
            end = record.find(separator, place)
            end = len(record) if end < 0 else end
            text, place = record[place:end], end
        cells.append(text)
        if place >= len(record):
            return cells
        place += 1


def unquoted(cell: str) -> str | None:
    """The text of a cell that is quoted as a whole; None if its quotation marks do not pair."""
    try:
        text, end = _quoted(cell, 0)
    except UnclosedError:
        return None
    return text if end == len(cell) else None


def _quoted(record: str, start: int) -> tuple[str, int]:
    """The text between the quotation mark at `start` and the closing one, and the place behind that."""
    parts: list[str] = []
    place = start + 1
    while True:
        mark = record.find('"', place)
        if mark < 0:
            raise UnclosedError("a quotation mark opens a cell in it and closes none")
        if record[mark + 1 : mark + 2] != '"':
            parts.append(record[place:mark])
            return "".join(parts), mark + 1
        parts.append(record[place : mark + 1])
        place = mark + 2


def _after_blanks(record: str, place: int) -> int:
    while record[place : place + 1] in (" ", "\t"):
        place += 1
    return place
