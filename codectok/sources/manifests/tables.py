"""Rows of a manifest in CSV (RFC 4180) or TSV."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from codectok.audio.files import is_audio_path
from codectok.sources.labels import NAMES, columns_of

from .quoting import MalformedError, UnclosedError, split_record, unquoted
from .values import ManifestLine

SEPARATORS = (",", "\t", ";", "|")
# Lines that one row may span: a quotation mark that is never closed must not hold the rest of the file.
MAX_ROW_LINES = 100


def table_rows(texts: Iterable[str], name: str) -> Iterator[ManifestLine]:
    """Yield the rows of a table with a header from its lines, each with the number of its first line.

    Cells are separated by tabs or commas, by the file's name; by semicolons or bars if the header shows that. A
    `ValueError` stands for a row whose cells do not fit the header.

    Raises:
        ValueError: the header cannot be used.
    """
    lines = _Lines(texts)
    for number, line in lines:
        if line.strip():
            layout = _layout_of(line, ".tsv" in name.lower(), number)
            yield from _rows(lines, layout)


@dataclass(frozen=True)
class _Layout:
    """How the rows of a table are written.

    Attributes:
        names: cells of the header.
        separator: between two cells.
        spaced: True if a space follows each separator.
    """

    names: tuple[str, ...]
    separator: str
    spaced: bool

    def is_row(self, line: str) -> bool:
        """True if a line that may belong to a cell with line ends looks like a row by itself."""
        cells = _without_end(line).split(self.separator)
        if len(self.names) == 1:
            return is_audio_path(line.strip())
        if self.separator == "\t":
            return len(cells) == len(self.names)
        return len(cells) >= len(self.names) and any(is_audio_path(cell.strip()) for cell in cells)

    def split(self, record: str) -> list[str]:
        """Split a row by the rules of RFC 4180."""
        return split_record(record, self.separator, self.spaced)


class _Lines:
    """Numbered lines, some of which are looked at before their turn."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._lines = enumerate(texts, start=1)
        self._ahead: deque[tuple[int, str]] = deque()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        while True:
            if self._ahead:
                yield self._ahead.popleft()
                continue
            following = next(self._lines, None)
            if following is None:
                return
            yield following

    def following(self) -> Iterator[str]:
        """Look at the next lines, at most `MAX_ROW_LINES`."""
        for place in range(MAX_ROW_LINES):
            if place == len(self._ahead):
                following = next(self._lines, None)
                if following is None:
                    return
                self._ahead.append(following)
            yield self._ahead[place][1]

    def skip(self, count: int) -> None:
        """Drop lines that were looked at."""
        for _ in range(count):
            self._ahead.popleft()


def _layout_of(line: str, tabs: bool, number: int) -> _Layout:
    header = _without_end(line)
    separator = _separator_of(header, "\t" if tabs else ",")
    cells = _header_cells(header, separator)
    names = tuple(cell.strip() for cell in cells)
    for place, name in enumerate(names, start=1):
        if not name:
            raise ValueError(f"cell {place} of its header, in line {number}, is empty; name the column or remove it")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"its header, in line {number}, has {repeated!r} twice; name the columns differently")
    if not columns_of(names).get("path"):
        known = ", ".join(NAMES["path"][:3])
        raise ValueError(f"its header, in line {number}, has no column for the path of the audio ({known} or the like)")
    behind = header.split(separator)[1:]
    spaced = separator != "\t" and bool(behind) and all(cell[:1] in (" ", "\t") for cell in behind)
    return _Layout(names, separator, spaced)


def _header_cells(header: str, separator: str) -> list[str]:
    try:
        return split_record(header, separator, spaced=separator != "\t")
    except MalformedError:
        return header.split(separator)


def _separator_of(header: str, usual: str) -> str:
    """The usual separator, or the only other one that divides a header so that it has a path."""

    def divides(separator: str) -> bool:
        cells = _header_cells(header, separator)
        return len(cells) > 1 and bool(columns_of(tuple(cell.strip() for cell in cells)).get("path"))

    if divides(usual):
        return usual
    others = [separator for separator in SEPARATORS if separator != usual and divides(separator)]
    return others[0] if len(others) == 1 else usual


def _rows(lines: _Lines, layout: _Layout) -> Iterator[ManifestLine]:
    split = _cells_of_tsv if layout.separator == "\t" else _cells_of_csv
    for number, line in lines:
        try:
            cells = split(line, lines, layout)
        except ValueError as error:
            yield number, error
            continue
        if not any(cell and not cell.isspace() for cell in cells):
            continue
        values: dict[str, Any] = dict(zip(layout.names, cells, strict=False))
        if len(cells) == len(layout.names):
            yield number, values
        else:
            count = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
            yield number, ValueError(f"it has {count}, and the header {len(layout.names)}")


def _cells_of_csv(line: str, lines: _Lines, layout: _Layout) -> list[str]:
    record = _without_end(line)
    if '"' not in record:
        cells = record.split(layout.separator)
        return [cell.lstrip(" \t") for cell in cells] if layout.spaced else cells
    found = _whole_or_across_lines(record, line, lines, layout)
    if found is None:
        raise MalformedError("a quotation mark opens a cell in it and closes none")
    return found


def _whole_or_across_lines(record: str, line: str, lines: _Lines, layout: _Layout) -> list[str] | None:
    """Cells of a row with quoted ones, which may go on in the next lines; None if these are rows by themselves."""
    try:
        return layout.split(record)
    except UnclosedError:
        return _across_lines(line, lines, layout)


def _cells_of_tsv(line: str, lines: _Lines, layout: _Layout) -> list[str]:
    """Cells of a row in TSV, where quotation marks are text unless a cell as a whole is quoted correctly."""
    record = _without_end(line)
    cells = record.split("\t")
    fits = len(cells) == len(layout.names)
    if '"' not in record:
        return cells
    if fits and not any(cell.startswith('"') and unquoted(cell) is None for cell in cells):
        return [_text_of_cell(cell) for cell in cells]
    # Tabs and line ends within quotation marks, if only they make the row fit the header.
    found = None
    with suppress(MalformedError):
        found = _whole_or_across_lines(record, line, lines, layout)
    if found is not None and len(found) == len(layout.names):
        return found
    return [_text_of_cell(cell) for cell in cells]


def _text_of_cell(cell: str) -> str:
    inner = unquoted(cell) if cell.startswith('"') else None
    return cell if inner is None else inner


def _across_lines(line: str, lines: _Lines, layout: _Layout) -> list[str] | None:
    """Cells of a row with line ends in a quoted cell; None if the next lines are rows by themselves."""
    record = line
    for count, following in enumerate(lines.following(), start=1):
        if layout.is_row(following):
            return None
        record += following
        try:
            cells = layout.split(_without_end(record))
        except UnclosedError:
            continue
        if len(cells) == len(layout.names):
            lines.skip(count)
            return cells
        return None
    return None


def _without_end(line: str) -> str:
    return line.rstrip("\r\n")
