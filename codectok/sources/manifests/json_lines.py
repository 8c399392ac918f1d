"""Rows of a manifest in JSON: lines of objects, or an array of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from codectok.sources.encodings import StrictText

from .lines import BadLine, Lines

BLOCK = 1 << 16
# An array is parsed one object after the other; a larger one is not a row of a manifest.
LONGEST_OBJECT = 1 << 24
SPACES = " \t\r\n"
DECODER = json.JSONDecoder()


def json_rows(file: Iterable[str]) -> Lines:
    """Yield the values of the lines of `file` with their numbers."""
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield _object(number, line)


def json_array_rows(file: StrictText) -> Lines:
    """Yield the objects of the JSON array in `file` with the numbers of their first lines; only one is in memory.

    Raises:
        ValueError: the file is damaged, or goes on behind its array, so that its rest cannot be read.
    """
    reader = _ArrayReader(file)
    reader.expect("[")
    more = reader.peek() != "]"
    while more:
        reader.skip_spaces()
        number = reader.line
        values = reader.take_valid()
        yield (number, values) if values is not None else _object(number, reader.take_text())
        more = reader.peek() != "]"
        if more:
            reader.expect(",")
    reader.expect("]")
    if reader.peek():
        raise ValueError(
            f"it goes on in line {reader.line} behind its JSON array; write one array, or a line for each row"
        )


def json_object_rows(file: StrictText) -> Lines:
    """Yield JSON objects that are written over several lines each, with the numbers of their first lines.

    Raises:
        ValueError: the file is damaged, so that its rest cannot be read.
    """
    reader = _ArrayReader(file)
    while following := reader.peek():
        if following != "{":
            raise ValueError(f"line {reader.line} has {following!r} where an object of JSON should begin")
        number = reader.line
        values = reader.take_valid()
        yield (number, values) if values is not None else _object(number, reader.take_text())
        if reader.peek() == ",":
            reader.expect(",")


def is_open_object(start: str) -> bool:
    """True if a file that begins with the line `start` holds objects over several lines, as `jq` writes them."""
    return start.strip(SPACES + "\ufeff") == "{"


def is_json_array(start: str) -> bool:
    """True if a file that begins with `start` holds a JSON array."""
    return start.lstrip(SPACES + "\ufeff").startswith("[")


def _object(number: int, text: str) -> tuple[int, dict[str, object]] | BadLine:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        return BadLine(number, f"it is not valid JSON ({error.msg})")
    except RecursionError:
        return BadLine(number, "it is not valid JSON (it is nested too deeply)")
    except ValueError:
        return BadLine(number, "it has a number of too many digits")
    if not isinstance(values, dict):
        return BadLine(number, "it is not a JSON object")
    return number, values


class _ArrayReader:
    """Splits a JSON array into the texts of its values."""

    def __init__(self, file: StrictText) -> None:
        self._file, self._text, self._place = file, "", 0
        self.line = 1

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        self.skip_spaces()
        return self._text[self._place : self._place + 1]

    def expect(self, character: str) -> None:
        """Skip `character`, or raise `ValueError`."""
        found = self.peek()
        if found != character:
            shown = repr(found) if found else "the end of the file"
            raise ValueError(f"line {self.line} has {shown} where its JSON array needs {character!r}")
        self._place += 1

    def skip_spaces(self) -> None:
        """Go on to the next character that is not white space."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in SPACES:
                self.line += self._text[self._place] == "\n"
                self._place += 1
            if self._place < len(self._text) or not self._read():
                return

    def take_valid(self) -> dict[str, Any] | None:
        """The next value if it is an object and wholly in memory; None, and nothing is taken, for another one."""
        try:
            values, end = DECODER.raw_decode(self._text, self._place)
        except (ValueError, RecursionError):
            return None
        if not isinstance(values, dict):
            return None
        self.line += self._text.count("\n", self._place, end)
        self._place = end
        return values

    def take_text(self) -> str:
        """Text of the next value, up to its last bracket, or up to the next comma."""
        depth, quoted, escaped, place = 0, False, False, self._place
        while True:
            if place == len(self._text):
                if place - self._place > LONGEST_OBJECT:
                    raise ValueError(f"the object in line {self.line} is too long")
                taken = place - self._place
                if not self._read():
                    raise ValueError(f"the file ends within the object that begins in line {self.line}")
                place = self._place + taken
            character = self._text[place]
            if quoted:
                quoted = escaped or character != '"'
                escaped = character == "\\" and not escaped
            elif character == '"':
                quoted = True
            elif character in "[{":
                depth += 1
            elif character in "]}":
                depth -= 1
            if depth < 0 or (depth == 0 and not quoted and character == ","):
                break
            place += 1
            if depth == 0 and character in "]}":
                break
        text = self._text[self._place : place]
        self.line += text.count("\n")
        self._place = place
        return text

    def _read(self) -> bool:
        block = self._file.read(BLOCK)
        self._text, self._place = self._text[self._place :] + block, 0
        return bool(block)
