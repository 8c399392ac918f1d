"""Decodes texts strictly: by their byte-order mark, by an encoding that the user names, else as UTF-8."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import BinaryIO

from codectok.errors import InputError

DEFAULT = "utf-8"
# Longer marks first: that of UTF-32 begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LONGEST_MARK = 4
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
    name = _encoding_of(data[:LONGEST_MARK], encoding)
    try:
        text = data.decode(name)
    except UnicodeError as error:
        place = error.start if isinstance(error, UnicodeDecodeError) else 0
        raise UndecodableError(_problem(name, place, data[place : place + 1])) from None
    nul = text.find("\0")
    if nul >= 0:
        raise UndecodableError(f"it has a NUL character at position {nul} and may be UTF-16; {CURE}")
    return text


def text_lines(file: BinaryIO, encoding: str | None = None) -> Iterator[str]:
    """Yield the lines of a file with their ends, without its byte-order mark; lines end in LF, CR or both.

    Args:
        file: at its beginning.
        encoding: for files without a byte-order mark; None for UTF-8.

    Raises:
        UndecodableError: bytes are not text; the message has their place.
    """
    counted = _Counted(file)
    name = _encoding_of(counted.start[:LONGEST_MARK], encoding)
    if name == DEFAULT and b"\0" in counted.start:
        raise UndecodableError(f"it has NUL bytes at its beginning and may be UTF-16; {CURE}")
    count = 0
    try:
        for count, line in enumerate(io.TextIOWrapper(counted, encoding=name, newline=""), start=1):  # noqa: B007
            yield line
    except UnicodeDecodeError as error:
        # `error.object` holds the bytes that were not decoded yet, the last of those read.
        place = counted.count - len(error.object) + error.start
        before, byte = error.object[: error.start], error.object[error.start : error.start + 1]
        raise UndecodableError(_problem(name, place, byte, count + before.count(b"\n") + 1)) from None
    except UnicodeError:  # UTF-16 that ends within its mark
        raise UndecodableError(f"it is not {name.upper()}; {CURE}") from None


def _encoding_of(start: bytes, named: str | None) -> str:
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
