"""Framing of WAV files: RIFF, RIFX, RF64 and BW64."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from itertools import pairwise
from typing import BinaryIO

from codectok.audio.framing.layout import Damage, Layout, Stream
from codectok.audio.framing.magic import find_file
from codectok.audio.framing.samples import DAMAGED_HEADER, TOLERATED_BYTES, SampleData, layout_of_samples

from .chunks import Chunk, ChunkFormat
from .wave_format import FORMAT_BYTES, GSM, MP3, PCM, WaveFormat
from .wave_mp3 import MAX_FRAME, bytes_per_second, end_of_frames

MAGICS = (b"RIFF", b"RIFX", b"RF64", b"BW64")
FIRST_CHUNK = 12
IN_DS64 = 0xFFFF_FFFF  # size of a chunk that the chunk "ds64" states
DS64_BYTES = 28
# Marks at the start of coded packets, and how many are to be in the first bytes.
IEC_61937 = b"\x72\xf8\x1f\x4e"
DTS_MARKS = (b"\x7f\xfe\x80\x01", b"\xfe\x7f\x01\x80", b"\x1f\xff\xe8\x00", b"\xff\x1f\x00\xe8")
CODED_BYTES, CODED_PACKETS = 1 << 16, 3
MAX_SIZE = 0xFFFF_0000  # of samples in a RIFF file


def layout_of_riff(file: BinaryIO) -> Layout | None:
    """Layout of a WAV file, open at its start; None for other files."""
    header = file.read(FIRST_CHUNK)
    magic = header[:4]
    if magic not in MAGICS or header[8:12] != b"WAVE":
        return None
    order = ">" if magic == b"RIFX" else "<"
    chunks = ChunkFormat(struct.Struct(order + "4sI"))
    format_data, ds64, data = b"", None, None
    end = FIRST_CHUNK
    for chunk in chunks.walk(file, FIRST_CHUNK):
        end = chunk.start + chunk.size
        if chunk.name == b"fmt ":
            file.seek(chunk.start)
            format_data = file.read(min(chunk.size, FORMAT_BYTES))
        elif chunk.name == b"ds64":
            ds64 = chunk
        elif chunk.name == b"data":
            data = chunk
            break
    if data is None and end + chunks.header.size > file.seek(0, os.SEEK_END):
        return Layout("WAV", (), Damage(DAMAGED_HEADER, None, "unreadable"))
    wave = WaveFormat.parse(format_data, order)
    if wave is None and data is not None and 0 < len(format_data) < 16 and not _has_bytes(format_data, order):
        return Layout("WAV", (), Damage("does not say how many bits a sample has", None, "unreadable"))
    if data is None or wave is None:
        return None  # the decoder knows the reason
    fault = wave.fault()
    if fault is not None:
        return Layout("WAV", (), fault)
    samples = _samples(file, magic, order, chunks, wave, format_data, ds64, data)
    joined = _layout_of_several(file, chunks, data, samples)
    layout = joined or layout_of_samples(file, samples)
    if wave.tag == PCM and wave.bits == 16 and _is_coded(file, data.start):
        layout = replace(layout, streams=tuple(replace(stream, coded=True) for stream in layout.streams))
    return layout


def _has_bytes(format_data: bytes, order: str) -> bool:
    """Return True if a format without a number of bits has samples of 8 bits, as decoders assume."""
    if len(format_data) < 14:
        return False
    tag, channels, _, _, block = struct.unpack_from(order + "HHIIH", format_data)
    return bool(tag != PCM or block == channels)


def _is_coded(file: BinaryIO, start: int) -> bool:
    """Return True if samples of 16 bits are in truth packets of AC-3 or DTS, recorded from a digital output or a disc.

    As samples they are noise.
    """
    file.seek(start)
    head = file.read(CODED_BYTES)
    if any(head.startswith(mark) and head.count(mark) >= CODED_PACKETS for mark in DTS_MARKS):
        return True
    return head.count(IEC_61937) >= CODED_PACKETS and head.find(IEC_61937) % 2 == 0


def _samples(
    file: BinaryIO,
    magic: bytes,
    order: str,
    chunks: ChunkFormat,
    wave: WaveFormat,
    format_data: bytes,
    ds64: Chunk | None,
    data: Chunk,
) -> SampleData:
    large = magic in (b"RF64", b"BW64") and ds64 is not None
    stated: int | None = data.size
    if large and ds64 is not None and data.size == IN_DS64:
        file.seek(ds64.start + 8)
        stated = int.from_bytes(file.read(8), "little") or None
    elif not large and data.size == IN_DS64:
        stated = None
    # libsndfile does not know BW64, which is RF64 with other chunks; a small one has no "ds64".
    other_magic = ((0, b"RF64" if large else b"RIFF"),) if magic == b"BW64" else ()
    is_mp3 = wave.tag == MP3

    def stream(n_bytes: int) -> Stream:
        end = data.start + n_bytes
        if is_mp3:
            end = end_of_frames(file, data.start, end)
            n_bytes = end - data.start
        if large and ds64 is not None:
            sizes = struct.pack("<QQQ", end - 8, n_bytes, n_bytes // wave.frame)
            return Stream(0, end, (*other_magic, (ds64.start, sizes), (data.start - 4, b"\xff\xff\xff\xff")))
        if n_bytes > MAX_SIZE and order == "<":
            return Stream(data.start, end, head=_head(format_data, n_bytes, wave.frame))
        # libsndfile would round an odd size up, and decode a block that does not exist.
        even = n_bytes - n_bytes % 2 if wave.tag == GSM else n_bytes
        sizes = struct.pack(order + "I", min(even, MAX_SIZE))
        riff_size = struct.pack(order + "I", min(end - 8, MAX_SIZE))
        # Without a Xing header libsndfile would guess the length of an MP3 from its first frames.
        return Stream(0, end, (*other_magic, (4, riff_size), (data.start - 4, sizes)), piped=is_mp3)

    return SampleData(
        container="RF64" if large else "WAV",
        start=data.start,
        stated=stated,
        block=wave.frame,
        bytes_per_second=bytes_per_second(file, data.start) if is_mp3 else wave.rate_of_bytes,
        stream=stream,
        end_of_chunks=chunks.end_of_chunks,
        first_of_chunks=chunks.first_of_chunks,
        codec_block=max(wave.block, MAX_FRAME if is_mp3 else 0),
        whole=not is_mp3 and magic != b"BW64",
    )


def _head(format_data: bytes, n_bytes: int, frame: int) -> bytes:
    """Header of a RF64 file for samples whose size does not fit into that of a RIFF file."""
    format_data += bytes(len(format_data) % 2)
    ds64 = struct.pack("<QQQI", FIRST_CHUNK + 36 + 8 + len(format_data) + n_bytes, n_bytes, n_bytes // frame, 0)
    chunks = (
        b"ds64" + struct.pack("<I", DS64_BYTES) + ds64 + b"fmt " + struct.pack("<I", len(format_data)) + format_data
    )
    return b"RF64\xff\xff\xff\xffWAVE" + chunks + b"data\xff\xff\xff\xff"


def _layout_of_several(file: BinaryIO, chunks: ChunkFormat, data: Chunk, samples: SampleData) -> Layout | None:
    """Layout of a file with several chunks of samples, which follow one another; None for other files."""
    size = file.seek(0, os.SEEK_END)
    first_end = data.start + (samples.stated or 0)
    if not samples.stated or first_end > size:
        return None
    parts = [(data.start, first_end)]
    for chunk in chunks.walk(file, first_end):
        if chunk.name == b"data":
            parts.append((chunk.start, chunk.start + chunk.size))
    # A header that is a little too large may end in that of another file.
    if len(parts) == 1 or find_file(file, max(data.start, first_end - TOLERATED_BYTES), first_end) is not None:
        return None
    start, end = parts.pop()
    layout = layout_of_samples(file, replace(samples, start=start, stated=end - start))
    parts.append((start, min(end, size)))
    stream = samples.stream(sum(part_end - part_start for part_start, part_end in parts))
    holes = tuple((before[1], after[0]) for before, after in pairwise(parts))
    return replace(layout, streams=(replace(stream, end=parts[-1][1], holes=holes),))
