"""Decodes texts strictly: by their byte-order mark, by an encoding that the user names, else as UTF-8."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import BinaryIO, Self

from codectok.errors import InputError

DEFAULT = "utf-8"
MAX_LINE_BYTES = 1 << 24  # a longer line is not one of text
# Longer marks first: that of UTF-32 begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Bytes at the beginning in which NULs show UTF-16 without a mark.
LOOK_BYTES = 64
CURE = "name its encoding with --encoding, or convert it to UTF-8"


class UndecodableError(ValueError):
    """Bytes that are not text; the message is the end of a sentence."""


def check_encoding(name: str) -> str:
    """The name of a text encoding as Python writes it.

    Raises:
        InputError: there is no such encoding.
    """
    try:
        found = codecs.lookup(name)
        if found._is_text_encoding:  # a private attribute, but `bytes.decode` refuses others too late
            return found.name
    except (LookupError, ValueError):
        pass
    raise InputError(f"There is no text encoding {name!r}; --encoding takes names such as utf-8, latin-1 or utf-16-le.")


def decode_text(data: bytes, encoding: str | None = None) -> str:
    """Decode a whole text, without its byte-order mark.

    Args:
        data: the bytes.
        encoding: for data without a byte-order mark; None for UTF-8.

    Raises:
        UndecodableError: the bytes are not in this encoding, or the text has NUL characters.
    """
    name = encoding_of(data, encoding)
    try:
        text = data.decode(name)
    except UnicodeError as error:
        place = error.start if isinstance(error, UnicodeDecodeError) else 0
        raise UndecodableError(_problem(name, place, data[place : place + 1])) from None
    nul = text.find("\0")
    if nul >= 0:
        raise UndecodableError(f"it has a NUL character at position {nul} and may be UTF-16; {CURE}")
    return text


class StrictText:
    """A file as text without its byte-order mark; lines end in LF, CR or both, and keep their ends.

    Reading raises `UndecodableError` with the place of bytes that are not text.

    Args:
        file: at its beginning.
        encoding: for files without a byte-order mark; None for UTF-8.

    Raises:
        UndecodableError: the file seems to be in UTF-16 without a mark.
    """

    def __init__(self, file: BinaryIO, encoding: str | None = None) -> None:
        self._counted = _Counted(file)
        start = self._counted.start
        self._encoding = encoding_of(start, encoding)
        if self._encoding == DEFAULT and b"\0" in start:
            self.close()
            raise UndecodableError(f"it has NUL bytes at its beginning and may be UTF-16; {CURE}")
        self._text = io.TextIOWrapper(self._counted, encoding=self._encoding, newline="")
        self._lines = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        try:
            while line := self._text.readline(MAX_LINE_BYTES):
                self._lines += 1
                if len(line) == MAX_LINE_BYTES:
                    raise UndecodableError(f"line {self._lines} is longer than {MAX_LINE_BYTES:,} characters")
                yield line
        except UnicodeError as error:
            raise self._undecodable(error, self._lines) from None

    def read(self, size: int) -> str:
        """Read up to `size` characters."""
        try:
            return self._text.read(size)
        except UnicodeError as error:
            raise self._undecodable(error) from None

    def close(self) -> None:
        """Close the file."""
        self._counted.close()

    def _undecodable(self, error: UnicodeError, lines: int | None = None) -> UndecodableError:
        """The error for a reader, with the number of the line behind `lines` that were read."""
        if not isinstance(error, UnicodeDecodeError):  # UTF-16 that ends within its mark
            return UndecodableError(f"it is not {self._encoding.upper()}; {CURE}")
        # `error.object` holds the bytes that were not decoded yet, the last of those read.
        place = self._counted.count - len(error.object) + error.start
        before, byte = error.object[: error.start], error.object[error.start : error.start + 1]
        line = None if lines is None else lines + before.count(b"\n") + 1
        return UndecodableError(_problem(self._encoding, place, byte, line))


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of `file`; raises `UndecodableError` for one that is too long for a line of text."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) == MAX_LINE_BYTES:
            raise UndecodableError(f"a line of it, line {number}, is longer than {MAX_LINE_BYTES:,} bytes")
        yield line


def encoding_of(start: bytes, named: str | None) -> str:
    """The encoding of a text that begins with `start`: of its byte-order mark, `named`, or UTF-8."""
    return next((name for mark, name in MARKS if start.startswith(mark)), named or DEFAULT)


def _problem(encoding: str, place: int, byte: bytes, line: int | None = None) -> str:
    where = f"byte {place}" + (f", in line {line}," if line is not None else "")
    value = f" ({byte.hex()})" if byte else ""
    return f"{where}{value} is not {encoding.removesuffix('-sig').upper()}; {CURE}"


class _Counted(io.RawIOBase):
    """Counts the bytes that are read of a file; its `start` can be looked at before."""

    name = ""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.start = file.read(LOOK_BYTES)
        self.count = 0

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, as `TextIOWrapper` does."""
        data, self.start = self.start or self._file.read(size), b""
        self.count += len(data)
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
