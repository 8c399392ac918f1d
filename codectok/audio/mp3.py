"""MP3 files that do not say how long they are."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ID3_HEADER = 10
# A tag with pictures comes before the first frame; the length stands inside that frame if anywhere.
MP3_SEARCH = 1 << 20
FIRST_FRAME = 4096
LENGTH_MARKS = (b"Xing", b"Info", b"VBRI")
CHUNK = 1 << 16


def is_mp3_without_length(start: bytes) -> bool:
    """Whether a file that begins with `start` is an MP3 stream without a header that gives its length."""
    frame = start
    if start[:3] == b"ID3" and len(start) >= ID3_HEADER:
        size = sum((byte & 0x7F) << shift for byte, shift in zip(start[6:10], (21, 14, 7, 0), strict=True))
        frame = start[ID3_HEADER + size :]
    # Eleven set bits, then an MPEG version and a layer that exist.
    synchronized = len(frame) > 1 and frame[0] == 0xFF and frame[1] & 0xE0 == 0xE0 and frame[1] & 0x06 != 0
    return synchronized and not any(mark in frame[:FIRST_FRAME] for mark in LENGTH_MARKS)


@contextmanager
def as_pipe(source: Path | bytes) -> Iterator[int]:
    """The reading end of a pipe through which `source` comes, open while the context lasts."""
    reading, writing = os.pipe()

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
            return  # the reader has what it wanted

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        yield reading
    finally:
        os.close(reading)  # a feeder that still writes ends with a broken pipe
        feeder.join()
