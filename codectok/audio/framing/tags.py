"""Tags before and behind the audio of a file."""

from __future__ import annotations

from .scan import Scanner

ID3V1_SIZE = 128
APE_SIZE = 32  # of its header and of its footer


def end_of_id3v2(scanner: Scanner, position: int) -> int:
    """Position behind an ID3v2 tag at `position`, by the length in its header; `position` if there is none."""
    header = scanner.peek(position, 10)
    if header[:3] != b"ID3" or len(header) < 10 or any(byte & 0x80 for byte in header[6:]):
        return position
    size = sum(byte << shift for byte, shift in zip(header[6:], (21, 14, 7, 0), strict=True))
    return position + 10 + size + (10 if header[5] & 0x10 else 0)


def end_of_tags(scanner: Scanner, position: int, end: int) -> int:
    """Position behind the tags and zero bytes that follow one another from `position` on, at most `end`."""
    while position < end:
        begun, start = position, scanner.peek(position, APE_SIZE)
        if start[:3] == b"TAG":
            position += ID3V1_SIZE
        elif start[:8] == b"APETAGEX" and len(start) == APE_SIZE:
            # The size covers the footer; a header, by bit 29 of the flags, comes before it.
            position += int.from_bytes(start[12:16], "little") + APE_SIZE * bool(start[23] & 0x20)
        elif start[:3] == b"ID3":
            position = end_of_id3v2(scanner, position)
        else:
            position = scanner.end_of_zeros(position, end)
        if position <= begun:
            return begun
    return min(position, end)
