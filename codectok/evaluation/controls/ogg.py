"""Sizes of the packets in an Ogg file (RFC 3533)."""

from __future__ import annotations

from collections.abc import Iterator

from codectok.errors import CodectokError

PAGE_MARK = b"OggS"
PAGE_HEADER = 27
# Place of the number of segments in a page's header.
N_SEGMENTS = 26
LONGEST_SEGMENT = 255
# Of Opus (RFC 7845): identification and comments.
HEADER_PACKETS = 2


def payload_bytes(data: bytes) -> int:
    """Return the number of bytes of all packets of audio in an Ogg Opus file with one stream.

    Raises:
        CodectokError: the bytes are not whole pages.
    """
    return sum(list(_packet_sizes(data))[HEADER_PACKETS:])


def _packet_sizes(data: bytes) -> Iterator[int]:
    start = size = 0
    while start < len(data):
        table = start + PAGE_HEADER
        segments = data[table : table + data[start + N_SEGMENTS]] if table <= len(data) else b""
        end = table + len(segments) + sum(segments)
        if data[start : start + len(PAGE_MARK)] != PAGE_MARK or end > len(data):
            raise CodectokError(f"The Ogg file is damaged at byte {start:,}.")
        for segment in segments:
            size += segment
            if segment < LONGEST_SEGMENT:  # the last segment of a packet
                yield size
                size = 0
        start = end
