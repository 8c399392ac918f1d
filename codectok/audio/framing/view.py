"""Views of the streams in a file, for decoders that read from file objects or pipes."""

from __future__ import annotations

import io
import os
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from codectok.seekable import SeekableReader

from .layout import Stream

CHUNK = 1 << 16


class BoundedReader(io.BufferedReader):
    """A file in which a position behind the end is the end: file systems refuse those that are too large for them."""

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self._size = os.fstat(raw.fileno()).st_size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position relative to the start, the current position or the end of the file."""
        return super().seek(min(offset, self._size) if whence == os.SEEK_SET else offset, whence)


def open_source(source: Path | bytes) -> BinaryIO:
    """Open a file, or the bytes of one, for reading and seeking."""
    return io.BytesIO(source) if isinstance(source, bytes) else BoundedReader(source.open("rb", buffering=0))


class StreamView(SeekableReader):
    """The bytes of a stream as a file object, with its patches applied.

    Args:
        file: the whole file, open for reading and seeking.
        stream: part of it.
    """

    def __init__(self, file: BinaryIO, stream: Stream) -> None:
        super().__init__(len(stream.head))
        self._file, self._stream = file, stream
        # Ranges of the file that follow one another here, with the position of each; the head comes before them.
        self._places: list[int] = []
        self._ranges: list[tuple[int, int]] = []
        start = stream.start
        for hole_start, hole_end in (*stream.holes, (stream.end, stream.end)):
            self._places.append(self._size)
            self._ranges.append((start, hole_start))
            self._size += hole_start - start
            start = hole_end
        self._patches = sorted(stream.patches)
        self._patched = [offset for offset, _ in self._patches]
        self._longest = max((len(patch) for _, patch in self._patches), default=0)

    def _read(self, wanted: int) -> bytes | bytearray:
        if self._position < len(self._stream.head):
            return self._stream.head[self._position : self._position + wanted]
        if self._position >= self._size:
            return b""
        index = bisect_right(self._places, self._position) - 1
        start, end = self._ranges[index]
        first = start + self._position - self._places[index]
        self._file.seek(first)
        data = bytearray(self._file.read(min(wanted, end - first)))
        near = bisect_left(self._patched, first - self._longest), bisect_left(self._patched, first + len(data))
        for offset, patch in self._patches[slice(*near)]:
            for place, byte in enumerate(patch, offset - first):
                if 0 <= place < len(data):
                    data[place] = byte
        return data


@contextmanager
def as_pipe(file: BinaryIO) -> Iterator[int]:
    """Send `file` through a pipe, and yield the file descriptor to read from, open while the context lasts."""
    reading, writing = os.pipe()

    failures: list[OSError] = []

    def feed() -> None:
        try:
            with os.fdopen(writing, "wb") as pipe:
                while chunk := file.read(CHUNK):
                    pipe.write(chunk)
        except BrokenPipeError:
            return  # the reader has closed its end
        except OSError as error:
            failures.append(error)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        yield reading
    finally:
        os.close(reading)  # a feeder that still writes gets a broken pipe
        feeder.join()
        if failures:  # the disk failed, so the result of the decoder is meaningless
            raise failures[0]
