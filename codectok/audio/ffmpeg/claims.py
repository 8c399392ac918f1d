"""Claims of containers on size and duration, so that a cut-off file is noticed although a decoder reads it."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

HEAD_BYTES = 1 << 16  # headers lie within them
BOX_HEADER = 16
OGG, OGG_END, OGG_HEADER = b"OggS", 4, 27
OGG_PAGE_BYTES = 65_307  # at most
ASF_MAGIC = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"
ASF_FILE_PROPERTIES = b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp", b"sidx", b"mfra", b"uuid", b"pnot")
# Programs that write to a pipe leave at least this size in a RIFF header, since they cannot know it.
STREAMED_SIZE = 0x7FFF_0000


@dataclass(frozen=True)
class Claims:
    """Claims of a container on its file.

    Attributes:
        is_cut_off: True if the file is smaller than its headers say, or lacks the end mark of its format.
        seconds: duration that the headers state; None if they do not, or if this is left to the decoder.
        usable_size: bytes before a cut-off header of a fragment, at which decoders fail; None if there is none.
        is_measured: True if a decoder can only measure the duration on the bytes that there are.
    """

    is_cut_off: bool = False
    seconds: float | None = None
    is_measured: bool = False
    usable_size: int | None = None


def claims_of(file: BinaryIO) -> Claims:
    """Claims of a container that ffmpeg reads; nothing is claimed by other files."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    size = file.seek(0, os.SEEK_END)
    if head[4:8] in BOXES:
        end, has_fragments, fragment = _end_of_boxes(file, size)
        is_cut_off = _is_beyond(end, size)
        return Claims(is_cut_off, None, has_fragments, fragment if is_cut_off else None)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        # Late audio is counted from the start of the film, so that a whole file may have less.
        is_cut_off = _is_beyond(_end_of_riffs(file), size)
        return Claims(is_cut_off, _avi_seconds(head) if is_cut_off else None, is_cut_off)
    if head[:4] == EBML:
        return Claims(_is_beyond(_end_of_segment(file), size))
    if head[:8] == ASF_MAGIC:
        return _asf_claims(head, size)
    if head[:4] == OGG:
        return Claims(is_cut_off=not _ends_with_last_page(file, size), is_measured=True)
    return Claims()


def _is_beyond(end: int | None, size: int) -> bool:
    return end is not None and end > size


def _end_of_boxes(file: BinaryIO, size: int) -> tuple[int | None, bool, int | None]:
    """End of the last box at the top level of an MPEG-4 file; True if there are fragments; start of a last `moof`."""
    end, has_fragments, fragment = 0, False, None
    while end + 8 <= size:
        file.seek(end)
        header = file.read(BOX_HEADER)
        length = int.from_bytes(header[:4])
        if header[4:8] not in BOXES or length == 0:  # other bytes, or a box up to the end of the file
            return None, has_fragments, None
        fragment = end if header[4:8] == b"moof" else None
        has_fragments = has_fragments or fragment is not None
        if length == 1:
            length = int.from_bytes(header[8:16])
        if length < 8:
            return None, has_fragments, None
        end += length
    return end, has_fragments, fragment


def _end_of_riffs(file: BinaryIO) -> int | None:
    """End of the last RIFF chunk of an AVI file, which has several if it is large."""
    end = 0
    while True:
        file.seek(end)
        header = file.read(12)
        if header[:4] != b"RIFF":
            return end
        length = int.from_bytes(header[4:8], "little")
        if not 4 <= length < STREAMED_SIZE:
            return None
        end += 8 + length + length % 2


def _end_of_segment(file: BinaryIO) -> int | None:
    file.seek(4)
    end = _ebml_size(file)
    if end is None:
        return None
    file.seek(end)
    if file.read(4) != SEGMENT:
        return None
    return _ebml_size(file)


def _ebml_size(file: BinaryIO) -> int | None:
    """End of the EBML element whose size is read next; None for an element of unknown size."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    width = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(width - 1)) & ((1 << 7 * width) - 1)
    return None if value == (1 << 7 * width) - 1 else file.tell() + value


def _asf_claims(head: bytes, size: int) -> Claims:
    place = head.find(ASF_FILE_PROPERTIES)
    properties = head[place : place + 104] if place >= 0 else b""
    if len(properties) < 104 or properties[88] & 1:  # a broadcast knows neither size nor duration
        return Claims()
    stated, duration, preroll = (int.from_bytes(properties[at : at + 8], "little") for at in (40, 64, 80))
    return Claims(stated > size, duration / 1e7 - preroll / 1e3 if duration else None, True)


def _avi_seconds(head: bytes) -> float | None:
    """Duration of the first audio stream by its header."""
    place = head.find(b"auds", 0, -48)
    if place < 8 or head[place - 8 : place - 4] != b"strh":
        return None
    scale, rate, _, length = struct.unpack_from("<4I", head, place + 20)
    return length * scale / rate if rate and length else None


def _ends_with_last_page(file: BinaryIO, size: int) -> bool:
    """True if the last page of an Ogg file is marked as the last one of its stream."""
    file.seek(max(0, size - 2 * OGG_PAGE_BYTES))
    tail = file.read()
    place = tail.rfind(OGG)
    header = tail[place : place + OGG_HEADER] if place >= 0 else b""
    if len(header) < OGG_HEADER or not header[5] & OGG_END:
        return False
    lacing = tail[place + OGG_HEADER : place + OGG_HEADER + header[-1]]
    return len(lacing) == header[-1] and place + OGG_HEADER + len(lacing) + sum(lacing) <= len(tail)
