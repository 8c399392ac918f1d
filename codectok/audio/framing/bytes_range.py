"""Bytes of a range of a file, read in chunks, so that walkers may look at small pieces cheaply."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

CHUNK = 1 << 18
FIRST_SEARCHED = 1 << 12  # most searches end soon


class BytesRange:
    """The bytes from `start` to `end` (excluded) of a file, by their offset in the file.

    Args:
        file: open for reading and seeking.
        start, end: of the range; nothing outside of it is seen.
    """

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self.start, self.end = start, end
        self._file = file
        self._chunk_start, self._chunk = start, b""

    def read(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from `position` on; fewer at the end of the range."""
        first = position - self._chunk_start
        if first < 0 or first + size > len(self._chunk):
            self._chunk_start, self._chunk, first = position, self.read_chunk(position, max(size, CHUNK)), 0
        return self._chunk[first : first + size]

    def read_chunk(self, position: int, size: int = CHUNK) -> bytes:
        """Return up to `size` bytes from `position` on, without keeping them."""
        self._file.seek(position)
        return self._file.read(max(0, min(size, self.end - position)))

    def matches(self, pattern: re.Pattern[bytes], position: int, end: int, length: int) -> Iterator[int]:
        """Yield the positions from `position` up to `end` where `pattern` matches, which spans up to `length` bytes."""
        end, size = min(end, self.end), FIRST_SEARCHED
        while position < end:
            chunk = self.read_chunk(position, size + length - 1)
            for match in pattern.finditer(chunk):
                if match.start() < size and position + match.start() < end:
                    yield position + match.start()
            position, size = position + size, min(CHUNK, size * 4)

    def find(self, text: bytes, position: int, end: int) -> int:
        """Return the first position of `text` from `position` up to `end`; -1 without one."""
        return next(self.matches(re.compile(re.escape(text)), position, end, len(text)), -1)

    def skip_zeros(self, position: int) -> int:
        """Return the position of the first byte from `position` on that is not zero; `end` without one."""
        while position < self.end:
            chunk = self.read_chunk(position)
            rest = len(chunk.lstrip(b"\0"))
            position += len(chunk) - rest
            if rest:
                break
        return position
