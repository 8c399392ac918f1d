"""Reading and searching a range of a file in windows, so that memory does not grow with its length."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import BinaryIO

WINDOW = 1 << 18
FIRST_SEARCHED = 1 << 12  # most searches for patterns end soon


class Window:
    """The bytes from `start` to `end` (excluded) of a file, by their offset in the file.

    Args:
        file: open for reading and seeking.
        start, end: of the range, by default of the file; nothing outside of it is seen.

    Raises:
        EOFError: on reading, if the file became shorter.
    """

    def __init__(self, file: BinaryIO, start: int = 0, end: int | None = None) -> None:
        self.start, self.end = start, file.seek(0, os.SEEK_END) if end is None else end
        self._file = file
        self._loaded_start, self._loaded = start, b""

    def read(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from `position` on; fewer at the end of the range."""
        first = position - self._loaded_start
        if first < 0 or first + size > len(self._loaded):
            self._load(position, size)
            first = 0
        return self._loaded[first : first + size]

    def read_once(self, position: int, size: int = WINDOW) -> bytes:
        """Return up to `size` bytes from `position` on, without keeping them."""
        size = max(0, min(size, self.end - position))
        self._file.seek(position)
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError(f"it became shorter than its {self.end:,} bytes while it was read")
        return data

    def find(self, text: bytes, position: int, end: int) -> int:
        """Return the first position of `text` that begins in [position, end); -1 without one."""
        end = min(end, self.end)
        while position < end:
            if not self._loaded_start <= position <= self._loaded_start + len(self._loaded) - len(text):
                self._load(position, len(text))
            loaded_end = self._loaded_start + len(self._loaded)
            found = self._loaded.find(text, position - self._loaded_start, end + len(text) - 1 - self._loaded_start)
            if found >= 0:
                return self._loaded_start + found
            if loaded_end >= self.end:
                return -1
            position = loaded_end - len(text) + 1
        return -1

    def matches(self, pattern: re.Pattern[bytes], position: int, end: int, length: int) -> Iterator[int]:
        """Yield the positions in [position, end) where `pattern` matches, which spans up to `length` bytes."""
        end, size = min(end, self.end), FIRST_SEARCHED
        while position < end:
            data = self.read_once(position, size + length - 1)
            for match in pattern.finditer(data):
                if match.start() < size and position + match.start() < end:
                    yield position + match.start()
            position, size = position + size, min(WINDOW, size * 4)

    def skip_zeros(self, position: int, end: int | None = None) -> int:
        """Return the position of the first byte in [position, end) that is not zero; `end` without one."""
        end = self.end if end is None else min(end, self.end)
        while position < end:
            data = self.read_once(position, min(WINDOW, end - position))
            rest = len(data.lstrip(b"\0"))
            position += len(data) - rest
            if rest or not data:
                break
        return position

    def _load(self, position: int, size: int) -> None:
        self._loaded_start, self._loaded = position, self.read_once(position, max(size, WINDOW))
