"""Pages of Ogg."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from codectok.audio.framing.window import Window

CAPTURE = b"OggS"
HEADER = 27
CONTINUED, FIRST, LAST = 1, 2, 4  # flags
CRC_AT = 22
NO_GRANULE = -1
# Ogg's CRC-32 has zlib's polynomial, and takes the bits of each byte in the other order.
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Page(NamedTuple):
    """A page.

    Attributes:
        start, end: byte range in the file.
        flags: CONTINUED, FIRST, LAST.
        granule: position in samples behind the last packet that ends on this page; -1 if none does.
        serial, sequence: number of the logical stream, and of the page in it.
        lacing: sizes of the segments.
        body: the segments.
        whole: True if the page is complete and its CRC right.
    """

    start: int
    end: int
    flags: int
    granule: int
    serial: int
    sequence: int
    lacing: bytes
    body: bytes
    whole: bool


def page_at(data: Window, position: int) -> Page | None:
    """Page at `position`; None if none begins there."""
    header = data.read(position, HEADER + 255)
    if header[:5] != CAPTURE + b"\0" or len(header) < HEADER:
        return None
    lacing = header[HEADER : HEADER + header[26]]
    body_start = HEADER + header[26]
    size = body_start + sum(lacing)
    page = data.read(position, size)
    granule = int.from_bytes(header[6:14], "little", signed=True)
    serial, sequence = int.from_bytes(header[14:18], "little"), int.from_bytes(header[18:22], "little")
    whole = len(page) == size and len(lacing) == header[26] and page_crc(page) == header[CRC_AT : CRC_AT + 4]
    return Page(position, position + size, header[5], granule, serial, sequence, lacing, page[body_start:], whole)


def page_crc(page: bytes) -> bytes:
    """CRC that belongs into a page."""
    # zlib inverts its register before and after.
    register = zlib.crc32(b"\0\0\0\0", zlib.crc32(page[:CRC_AT].translate(REVERSED), 0xFFFFFFFF))
    register = zlib.crc32(page[CRC_AT + 4 :].translate(REVERSED), register) ^ 0xFFFFFFFF
    return register.to_bytes(4, "big").translate(REVERSED)


def pages_from(data: Window, position: int) -> Iterator[Page]:
    """Yield the pages from `position` on; bytes between them, and broken headers, are skipped."""
    while position >= 0:
        page = page_at(data, position)
        if page is not None:
            yield page
        if page is not None and page.whole:
            position = page.end
        else:
            position += 1
        if data.read(position, 4) != CAPTURE:
            position = data.find(CAPTURE, position, data.end)
