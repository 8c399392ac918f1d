"""Reading and searching a file in windows, so that memory does not grow with its length."""

from __future__ import annotations

import os
from typing import BinaryIO

WINDOW = 1 << 20


class Scanner:
    """Bytes of a file at any position, read in windows.

    Args:
        file: open for reading and seeking.

    Attributes:
        size: of the file in bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.size = file.seek(0, os.SEEK_END)
        self._file = file
        self._start, self._data = 0, b""

    def peek(self, position: int, length: int) -> bytes:
        """Bytes at `position`; fewer at the end of the file."""
        first = position - self._start
        if first < 0 or first + length > len(self._data):
            self._load(position, length)
            first = 0
        return self._data[first : first + length]

    def find(self, needle: bytes, position: int, end: int) -> int:
        """First position of `needle` that begins in [position, end); -1 if there is none."""
        end = min(end, self.size)
        while position < end:
            if not self._start <= position <= self._start + len(self._data) - len(needle):
                self._load(position, len(needle))
            loaded = self._start + len(self._data)
            found = self._data.find(needle, position - self._start, end + len(needle) - 1 - self._start)
            if found >= 0:
                return self._start + found
            if loaded >= self.size:
                return -1
            position = loaded - len(needle) + 1
        return -1

    def end_of_zeros(self, position: int, end: int) -> int:
        """First position from `position` on that holds no zero byte, at most `end`."""
        while position < end:
            chunk = self.peek(position, min(WINDOW, end - position))
            rest = chunk.lstrip(b"\0")
            position += len(chunk) - len(rest)
            if rest or not chunk:
                return position
        return end

    def _load(self, position: int, length: int) -> None:
        self._file.seek(position)
        self._start, self._data = position, self._file.read(max(WINDOW, length))
