"""Marks at the start of audio files, which show where another file begins inside one."""

from __future__ import annotations

import struct
from typing import BinaryIO

HEADER = 64
W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
VOC_MAGIC = b"Creative Voice File\x1a"
WVE_MAGIC = b"ALawSoundFile**\x00"
MAT4_NAME = b"samplerate\x00"  # behind a header of 20 bytes
AU_ENCODINGS = {1: 8, 2: 8, 3: 16, 4: 24, 5: 32, 6: 32, 7: 64, 23: 4, 25: 3, 26: 5, 27: 8}
"""Bits per sample of the encodings of AU files that libsndfile decodes."""
MAX_CHANNELS = 256

SEARCH_BYTES = 1 << 20
MAX_TRIES = 1000  # in each block, so that a file full of marks is not searched for hours
# Bytes to search for, and their offset in the header; without zeros, which make searching slow.
ANCHORS = (
    (b"WAVE", 8),
    (b"FORM", 0),
    (b".snd", 0),
    (b"caff", 0),
    (W64_RIFF[:14], 0),
    (b"NIST_1A\n", 0),
    (VOC_MAGIC, 0),
    (b"fLaC", 0),
    (b"OggS", 0),
    (WVE_MAGIC[:-1], 0),
    (b"2BIT", 0),
    (b"MATLAB 5.0 MAT-file", 0),
    (MAT4_NAME[:-1], 20),
)
STARTS = (
    W64_RIFF,
    b"NIST_1A\n",
    VOC_MAGIC,
    WVE_MAGIC,
    b"MATLAB 5.0 MAT-file",
    b"fLaC\x00\x00\x00\x22",
    b"OggS\x00\x02",
)


def begins_file(header: bytes) -> bool:
    """Return True if `header`, of `HEADER` bytes where the file has them, is the start of an audio file."""
    if header[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return header[8:12] == b"WAVE"
    if header[:4] == b"FORM":
        return header[8:12] in (b"AIFF", b"AIFC", b"8SVX", b"16SV")
    if header[:4] == b".snd" and len(header) >= 24:
        offset, _, encoding, sample_rate, channels = struct.unpack_from(">IIIII", header, 4)
        return (
            24 <= offset < 1 << 16
            and encoding in AU_ENCODINGS
            and 1000 <= sample_rate <= 768_000
            and 1 <= channels <= MAX_CHANNELS
        )
    if header[20:31] == MAT4_NAME:
        return True
    if header[:4] == b"2BIT" and len(header) >= 30:
        mono, bits = struct.unpack_from(">HH", header, 12)
        return mono in (0, 0xFFFF) and bits in (8, 16)
    if header[:6] == b"caff\x00\x01":
        return header[8:12] == b"desc"
    return header.startswith(STARTS)


def find_same_format(file: BinaryIO, start: int, end: int) -> int | None:
    """Offset of the first audio file of the format of `file` that begins in a byte range; None if there is none.

    Long ranges are searched for their own format only, which costs little beside decoding.
    """
    file.seek(0)
    header = file.read(HEADER)
    own = tuple((anchor, offset) for anchor, offset in ANCHORS if header[offset:].startswith(anchor))
    return find_file(file, start, end, own)


def find_file(file: BinaryIO, start: int, end: int, anchors: tuple[tuple[bytes, int], ...] = ANCHORS) -> int | None:
    """Offset of the first audio file that begins in a byte range; None if there is none."""
    position = start
    while position < end:
        file.seek(position)
        data = file.read(min(SEARCH_BYTES, end - position) + HEADER)
        found = [place for anchor, offset in anchors for place in _places(data, anchor, offset)]
        if found:
            place = position + min(found)
            return place if place < end else None
        position += SEARCH_BYTES
    return None


def _places(data: bytes, anchor: bytes, offset: int) -> list[int]:
    """Place of the first file in `data` that `anchor` shows, in a list that is empty if there is none."""
    place = data.find(anchor)
    for _ in range(MAX_TRIES):
        if place < 0:
            break
        first = place - offset
        if first >= 0 and begins_file(data[first : first + HEADER]):
            return [first]
        place = data.find(anchor, place + 1)
    return []
