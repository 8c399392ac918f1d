"""Framing of rare formats that libsndfile reads: Amiga SVX, AVR and Psion WVE."""

from __future__ import annotations

import struct
from typing import BinaryIO

from .chunks import ChunkFormat
from .layout import Layout, Stream
from .samples import SampleData, layout_of_samples

SVX_CHUNKS = ChunkFormat(struct.Struct(">4sI"))
SVX_KINDS = {b"8SVX": 1, b"16SV": 2}  # bytes per sample
SVX_FIRST_CHUNK = 12
AVR_HEADER = 128
WVE_MAGIC = b"ALawSoundFile**\x00"
WVE_HEADER, WVE_SAMPLE_RATE = 32, 8000


def layout_of_svx(file: BinaryIO) -> Layout | None:
    """Layout of an Amiga SVX file, open at its start; None for other files."""
    header = file.read(SVX_FIRST_CHUNK)
    if header[:4] != b"FORM" or header[8:12] not in SVX_KINDS:
        return None
    sample_rate, body = 0, None
    for chunk in SVX_CHUNKS.walk(file, SVX_FIRST_CHUNK):
        if chunk.name == b"VHDR":
            file.seek(chunk.start + 12)
            sample_rate = int.from_bytes(file.read(2), "big")
        elif chunk.name == b"BODY":
            body = chunk
            break
    if body is None:
        return None  # the decoder knows the reason
    start, width = body.start, SVX_KINDS[header[8:12]]

    def stream(n_bytes: int) -> Stream:
        sizes = [struct.pack(">I", size) for size in (start + n_bytes - 8, n_bytes)]
        return Stream(0, start + n_bytes, ((4, sizes[0]), (start - 4, sizes[1])))

    samples = SampleData(
        container="SVX",
        start=start,
        stated=body.size or None,
        block=width,
        bytes_per_second=width * sample_rate,
        stream=stream,
        end_of_chunks=SVX_CHUNKS.end_of_chunks,
        stops=False,
    )
    return layout_of_samples(file, samples)


def layout_of_avr(file: BinaryIO) -> Layout | None:
    """Layout of an AVR file, open at its start; None for other files."""
    header = file.read(AVR_HEADER)
    if header[:4] != b"2BIT" or len(header) < AVR_HEADER:
        return None
    stereo, bits = struct.unpack_from(">HH", header, 12)
    sample_rate, n_frames = struct.unpack_from(">II", header, 22)
    block = (2 if stereo else 1) * max(1, bits // 8)
    return _layout_of_rest(file, "AVR", AVR_HEADER, n_frames * block, block, (sample_rate & 0xFFFFFF) * block)


def layout_of_wve(file: BinaryIO) -> Layout | None:
    """Layout of a Psion WVE file, open at its start; None for other files."""
    header = file.read(WVE_HEADER)
    if not header.startswith(WVE_MAGIC) or len(header) < WVE_HEADER:
        return None
    return _layout_of_rest(file, "WVE", WVE_HEADER, int.from_bytes(header[18:22], "big"), 1, WVE_SAMPLE_RATE)


def _layout_of_rest(
    file: BinaryIO, container: str, start: int, stated: int, block: int, bytes_per_second: float
) -> Layout:
    """Layout of a file that has nothing but a header and samples, which libsndfile reads to the end."""

    def stream(n_bytes: int) -> Stream:
        return Stream(0, start + n_bytes)

    samples = SampleData(container, start, stated or None, block, bytes_per_second, stream, stops=False)
    return layout_of_samples(file, samples)
