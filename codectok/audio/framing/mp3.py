"""Framing of MP3 files."""

from __future__ import annotations

import os
from typing import BinaryIO

from .layout import Layout, Stream

ID3_HEADER = 10
FIRST_FRAME = 4096  # the first frame holds the length, if any does
LENGTH_MARKS = (b"Xing", b"Info", b"VBRI")


def layout_of_mp3(file: BinaryIO) -> Layout | None:
    """Layout of an MP3 file, open at its start; None for other files."""
    start = file.read(ID3_HEADER)
    tag_size = 0
    if start[:3] == b"ID3" and len(start) == ID3_HEADER:
        size = sum((byte & 0x7F) << shift for byte, shift in zip(start[6:10], (21, 14, 7, 0), strict=True))
        tag_size = ID3_HEADER + size
    file.seek(tag_size)
    frame = file.read(FIRST_FRAME)
    # Eleven set bits, then an MPEG version and a layer that exist.
    synchronized = len(frame) > 1 and frame[0] == 0xFF and frame[1] & 0xE0 == 0xE0 and frame[1] & 0x06 != 0
    if not synchronized:
        return None
    # Without a length in its header libsndfile would guess it from the first frames and stop there.
    piped = not any(mark in frame for mark in LENGTH_MARKS)
    return Layout("MP3", (Stream(0, file.seek(0, os.SEEK_END), piped=piped),))
