"""Framing of Sony Wave64 files."""

from __future__ import annotations

import struct
from typing import BinaryIO

from codectok.audio.framing.layout import Layout, Stream
from codectok.audio.framing.magic import W64_RIFF
from codectok.audio.framing.samples import SampleData, is_unknown, layout_of_samples

from .chunks import ChunkFormat
from .wave_format import FORMAT_BYTES, WaveFormat

WAVE = bytes.fromhex("77617665f3acd3118cd100c04f8edb8a")
FIRST_CHUNK = 40
RIFF_SIZE = 16  # offset of the size of the file
CHUNKS = ChunkFormat(
    struct.Struct("<16sQ"),
    padding=8,
    suffixes=(bytes.fromhex("8cd100c04f8edb8a"), bytes.fromhex("00c04f8edb8a"), W64_RIFF[4:]),
    counts_header=True,
)


def layout_of_w64(file: BinaryIO) -> Layout | None:
    """Layout of a Wave64 file, open at its start; None for other files."""
    header = file.read(FIRST_CHUNK)
    if not header.startswith(W64_RIFF) or header[24:40] != WAVE:
        return None
    wave, data = None, None
    for chunk in CHUNKS.walk(file, FIRST_CHUNK):
        if chunk.name == b"fmt ":
            file.seek(chunk.start)
            wave = WaveFormat.parse(file.read(max(0, min(chunk.size, FORMAT_BYTES))))
        elif chunk.name == b"data":
            data = chunk
            break
    if wave is None or data is None:
        return None  # the decoder knows the reason
    fault = wave.fault()
    if fault is not None:
        return Layout("W64", (), fault)
    start = data.start

    def stream(n_bytes: int) -> Stream:
        end = start + n_bytes
        size = struct.pack("<Q", n_bytes + CHUNKS.header.size)
        return Stream(0, end, ((RIFF_SIZE, struct.pack("<Q", end)), (start - len(size), size)))

    samples = SampleData(
        container="W64",
        start=start,
        stated=None if data.size <= 0 or is_unknown(data.size + CHUNKS.header.size) else data.size,
        block=wave.frame,
        bytes_per_second=wave.rate_of_bytes,
        stream=stream,
        end_of_chunks=CHUNKS.end_of_chunks,
        codec_block=wave.block,
        stops=False,
    )
    return layout_of_samples(file, samples)
