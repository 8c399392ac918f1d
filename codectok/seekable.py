"""Base of file objects whose bytes are made or fetched when they are read."""

from __future__ import annotations

import io
from abc import abstractmethod


class SeekableReader(io.RawIOBase):
    """A file object that is read from any position; subclasses say how, in `_read`.

    Args:
        size: of the contents in bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size, self._position = size, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Position in the contents."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position relative to the start, the current position or the end of the contents."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read into `buffer` and return the number of bytes."""
        view = memoryview(buffer).cast("B")
        data = self._read(len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    @abstractmethod
    def _read(self, wanted: int) -> bytes | bytearray:
        """Return up to `wanted` bytes from the position; none only at the end."""
