"""MP3 files without a length in their header."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

ID3_HEADER = 10
FIRST_FRAME = 4096  # the first frame holds the length, if any does
LENGTH_MARKS = (b"Xing", b"Info", b"VBRI")
CHUNK = 1 << 16


def is_mp3_without_length(file: BinaryIO) -> bool:
    """Return True if `file`, open at its start, is an MP3 stream without a header that holds its length."""
    start = file.read(ID3_HEADER)
    tag_size = 0
    if start[:3] == b"ID3" and len(start) == ID3_HEADER:
        size = sum((byte & 0x7F) << shift for byte, shift in zip(start[6:10], (21, 14, 7, 0), strict=True))
        tag_size = ID3_HEADER + size
    file.seek(tag_size)
    frame = file.read(FIRST_FRAME)
    # Eleven set bits, then an MPEG version and a layer that exist.
    synchronized = len(frame) > 1 and frame[0] == 0xFF and frame[1] & 0xE0 == 0xE0 and frame[1] & 0x06 != 0
    return synchronized and not any(mark in frame for mark in LENGTH_MARKS)


@contextmanager
def as_pipe(source: Path | bytes) -> Iterator[int]:
    """Send `source` through a pipe, and yield the file descriptor to read from, open while the context lasts."""
    reading, writing = os.pipe()

    failures: list[OSError] = []

    def feed() -> None:
        try:
            with os.fdopen(writing, "wb") as pipe:
                if isinstance(source, bytes):
                    pipe.write(source)
                    return
                with source.open("rb") as file:
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
