"""Layout of files joined from several in a container that is not decoded here, such as MPEG-4, WebM or WavPack."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO

from codectok.audio.signatures import HEAD_BYTES, signature_of

from .layout import Layout, Stream

INNER_BOXES = (b"moov", b"mdat", b"wide", b"moof", b"sidx", b"styp")
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
DOC_TYPES = (b"webm", b"matroska")
ASF = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"
ASF_FILE_PROPERTIES = b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"
ASF_HEAD = 1 << 16
FLV, FLV_REST = b"FLV\x01", b"\x00\x00\x00\x09\x00\x00\x00\x00"
WAVPACK, WAVPACK_BLOCK, WAVPACK_INITIAL = b"wvpk", struct.Struct("<8sH6xIII"), 1 << 11
WAVPACK_VERSIONS = range(0x402, 0x411)
TTA, TTA_HEADER = b"TTA1", 18  # and a checksum of it
HEAD = 64
SEARCH_BYTES = 1 << 20


def layout_of_container(file: BinaryIO) -> Layout | None:
    """Layout of a file that another one follows; None for others."""
    head = file.read(HEAD)
    size = file.seek(0, os.SEEK_END)
    find = _finder(head)
    following = None if find is None else find(file, size)
    if following is None or not 0 < following < size:
        return None
    return Layout("", (Stream(0, following),), next_file=following)


def _finder(head: bytes) -> Callable[[BinaryIO, int], int | None] | None:
    if head[4:8] == b"ftyp":
        return _after_boxes
    if head[:4] == EBML:
        return _after_segment
    if head[:8] == ASF:
        return _after_asf
    if _is_flv(head):
        return lambda file, size: _search(file, 1, size, FLV, _is_flv)
    if _is_tta(head):
        return lambda file, size: _search(file, 1, size, TTA, _is_tta)
    return _after_wavpack if head[:4] == WAVPACK else None


def _after_boxes(file: BinaryIO, size: int) -> int | None:
    """Start of the second box with a type of file, which MPEG-4 files begin with, or of a file of another format."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        header = file.read(HEAD_BYTES)
        if position and header[4:8] not in INNER_BOXES and signature_of(header) is not None:
            return position
        length = int.from_bytes(header[8:16]) if header[:4] == b"\0\0\0\1" else int.from_bytes(header[:4])
        if length < 8:
            return None
        position += length
    return None


def _after_segment(file: BinaryIO, size: int) -> int | None:
    """Start of the next Matroska file: behind the segment, or, if that does not state its size, by a search."""
    position = _element_end(file, 0)
    file.seek(position or 0)
    if position is None or file.read(4) != SEGMENT:
        return None
    end = _element_end(file, position)
    if end is None:
        return _search(file, position, size, EBML, _is_ebml)
    file.seek(end)
    return end if signature_of(file.read(HEAD_BYTES)) is not None else None


def _element_end(file: BinaryIO, position: int) -> int | None:
    """End of the element at `position`, whose name has four bytes; None if it does not state its size."""
    file.seek(position + 4)
    data = file.read(8)
    if not data or not data[0]:
        return None
    width = 9 - data[0].bit_length()
    unknown = (1 << 7 * width) - 1
    length = int.from_bytes(data[:width]) & unknown
    return None if length == unknown else position + 4 + width + length


def _is_ebml(head: bytes) -> bool:
    return head[:4] == EBML and any(name in head[:HEAD] for name in DOC_TYPES)


def _is_flv(head: bytes) -> bool:
    return head[:4] == FLV and head[4:5] in (b"\x01", b"\x04", b"\x05") and head[5:13] == FLV_REST


def _is_tta(head: bytes) -> bool:
    checksum = zlib.crc32(head[:TTA_HEADER])
    return head[:4] == TTA and int.from_bytes(head[TTA_HEADER : TTA_HEADER + 4], "little") == checksum


def _after_asf(file: BinaryIO, size: int) -> int | None:
    file.seek(0)
    head = file.read(ASF_HEAD)
    place = head.find(ASF_FILE_PROPERTIES)
    end = int.from_bytes(head[place + 40 : place + 48], "little") if place >= 0 else 0
    if not 0 < end < size:
        return None
    file.seek(end)
    return end if file.read(8) == ASF else None


def _after_wavpack(file: BinaryIO, size: int) -> int | None:
    """Start of the second block with the first samples of a file."""
    first = _search(file, 0, size, WAVPACK, _is_wavpack)
    return None if first is None else _search(file, first + 1, size, WAVPACK, _is_wavpack)


def _is_wavpack(head: bytes) -> bool:
    if head[:4] != WAVPACK or len(head) < WAVPACK_BLOCK.size:
        return False
    _, version, index, samples, flags = WAVPACK_BLOCK.unpack_from(head)
    return version in WAVPACK_VERSIONS and index == 0 and 0 < samples < 1 << 20 and bool(flags & WAVPACK_INITIAL)


def _search(file: BinaryIO, start: int, end: int, mark: bytes, is_start: Callable[[bytes], bool]) -> int | None:
    """Offset of the first `mark` from `start` on that begins a file; None if there is none."""
    while start < end:
        file.seek(start)
        data = file.read(SEARCH_BYTES + HEAD)
        place = data.find(mark)
        while 0 <= place < SEARCH_BYTES:
            if is_start(data[place : place + HEAD]):
                return start + place
            place = data.find(mark, place + 1)
        start += SEARCH_BYTES
    return None
