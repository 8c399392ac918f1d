"""Standard streams that may be closed, full or without a reader: work continues, and the exit status tells of it."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Literal, TextIO

StreamName = Literal["stdout", "stderr"]
DESCRIPTORS: dict[StreamName, int] = {"stdout": 1, "stderr": 2}

_lost: dict[StreamName, OSError] = {}


class Stream:
    """Writes to `sys.stdout` or `sys.stderr`, and discards all further text once that fails."""

    def __init__(self, name: StreamName) -> None:
        self._name: StreamName = name

    def write(self, text: str) -> int:
        """Write `text`."""
        stream = self._stream
        try:
            if stream is not None:
                stream.write(text)
        except OSError as error:
            lose(self._name, error)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        stream = self._stream
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            lose(self._name, error)

    def isatty(self) -> bool:
        """Return True for a terminal."""
        stream = self._stream
        return stream is not None and stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        stream = self._stream
        return DESCRIPTORS[self._name] if stream is None else stream.fileno()

    @property
    def encoding(self) -> str:
        """Encoding of the stream."""
        stream = self._stream
        return "utf-8" if stream is None else stream.encoding

    @property
    def _stream(self) -> TextIO | None:
        """The stream of Python; None if its descriptor was closed at the start."""
        stream = getattr(sys, self._name)
        # While rich shows progress, it replaces the streams by its own, which would write here again.
        found: TextIO | None = getattr(stream, "rich_proxied_file", stream)
        return found


def open_closed_streams() -> None:
    """Open /dev/null for standard streams that are closed: other files would get their descriptors, and their text."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
    for name, descriptor in DESCRIPTORS.items():
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", closefd=False))


def lose(name: StreamName, error: OSError) -> None:
    """Send the text of a stream that cannot be written to /dev/null, also the text that is still in its buffer."""
    _lost.setdefault(name, error)
    with suppress(OSError, ValueError):  # a stream of a test has no descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, getattr(sys, name).fileno())
        os.close(null)


def flush_streams() -> OSError | None:
    """Flush both streams, and return the error that lost text of standard output; None if all was written."""
    for name in DESCRIPTORS:
        Stream(name).flush()
    return _lost.pop("stdout", None)


def has_reader(error: OSError) -> bool:
    """Return False if the error says that the reader of the output is gone: a program such as `head`, or a terminal."""
    return error.errno not in (errno.EPIPE, errno.EIO)
