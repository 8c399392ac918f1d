"""Tags before, between and behind the audio of a file."""

from __future__ import annotations

import re

from .window import Window

ID3_HEADER = 10
ID3_FOOTER_FLAG = 0x10
ID3V1, ID3V1_ENHANCED = 128, 227
APE_MARK, APE_HEADER, APE_IS_HEADER = b"APETAGEX", 32, 1 << 29
LYRICS_BEGIN, LYRICS_END_SIZE = b"LYRICSBEGIN", 9
LYRICS_MARKS = re.compile(b"LYRICS(?:200|END|BEGIN)")
# Tags without a size at their beginning are looked for up to here.
SEARCHED = 1 << 20


def tag_end(data: Window, position: int) -> int | None:
    """End of the tag that begins at `position`, as it says itself; None without one."""
    head = data.read(position, APE_HEADER)
    if head[:3] in (b"ID3", b"3DI") and len(head) >= ID3_HEADER:
        return _id3v2_end(head, position)
    if head[:3] == b"TAG":
        size = ID3V1_ENHANCED if head[3:4] == b"+" and data.read(position + ID3V1_ENHANCED, 3) == b"TAG" else ID3V1
        return position + size
    if head[:8] == APE_MARK and len(head) == APE_HEADER:
        size, flags = int.from_bytes(head[12:16], "little"), int.from_bytes(head[20:24], "little")
        return position + APE_HEADER + (size if flags & APE_IS_HEADER else 0)
    if head[: len(LYRICS_BEGIN)] == LYRICS_BEGIN:
        return _lyrics_end(data, position + len(LYRICS_BEGIN))
    return _end_by_ape_footer(data, position, head)


def is_id3v2(data: Window, position: int) -> bool:
    """Return True if an ID3v2 tag begins at `position`."""
    return end_of_id3v2(data, position) > position


def end_of_id3v2(data: Window, position: int) -> int:
    """Return the position behind an ID3v2 tag at `position`, or `position` without one."""
    return (tag_end(data, position) if data.read(position, 3) == b"ID3" else None) or position


def end_of_tags(data: Window, position: int, end: int) -> int:
    """Return the position behind the tags and zero bytes that follow one another from `position` on, at most `end`."""
    while position < end:
        behind = tag_end(data, position) or data.skip_zeros(position, end)
        if behind == position:
            return position
        position = behind
    return min(position, end)


def _id3v2_end(head: bytes, position: int) -> int | None:
    if head[3] == 0xFF or head[4] == 0xFF or any(byte > 0x7F for byte in head[6:10]):
        return None
    if head[:3] == b"3DI":  # a footer without its header
        return position + ID3_HEADER
    size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return position + ID3_HEADER + size + (ID3_HEADER if head[5] & ID3_FOOTER_FLAG else 0)


def _lyrics_end(data: Window, position: int) -> int | None:
    """End of lyrics whose text begins at `position`; None if others begin first."""
    mark = next(data.matches(LYRICS_MARKS, position, position + SEARCHED, len(LYRICS_BEGIN)), None)
    if mark is None or data.read(mark, len(LYRICS_BEGIN)) == LYRICS_BEGIN:
        return None
    return mark + LYRICS_END_SIZE


def _end_by_ape_footer(data: Window, position: int, head: bytes) -> int | None:
    """End of an APE tag without a header, which begins with the size and the flags of an item, then its key."""
    key = head[8:].split(b"\0")[0]
    if len(head) < APE_HEADER or not 2 <= len(key) < APE_HEADER - 8 or not all(0x20 <= byte < 0x7F for byte in key):
        return None
    place = data.find(APE_MARK, position, position + SEARCHED)
    if place < 0:
        return None
    size = int.from_bytes(data.read(place + 12, 4), "little")
    return place + APE_HEADER if place + APE_HEADER - size == position else None
