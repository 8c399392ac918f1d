"""Framing of AIFF and AIFF-C files."""

from __future__ import annotations

import struct
from typing import BinaryIO

from codectok.audio.framing.layout import Damage, Layout, Stream
from codectok.audio.framing.magic import MAX_CHANNELS
from codectok.audio.framing.samples import SampleData, is_unknown, layout_of_samples

from .chunks import ChunkFormat

FIRST_CHUNK = 12
CHUNKS = ChunkFormat(struct.Struct(">4sI"))
COMMON_BYTES = 22
SOUND_HEADER = 8  # offset of the samples and the size of a block
MAX_SIZE = 0xFFFF_0000
# Bytes and samples of a block per channel.
CODECS = {b"ima4": (34, 64), b"GSM ": (33, 160)}
SAMPLE_BITS = {b"ulaw": 8, b"ULAW": 8, b"alaw": 8, b"ALAW": 8, b"fl32": 32, b"FL32": 32, b"fl64": 64, b"FL64": 64}
VARIABLE = (b"DWVW",)


def layout_of_aiff(file: BinaryIO) -> Layout | None:
    """Layout of an AIFF file, open at its start; None for other files."""
    header = file.read(FIRST_CHUNK)
    if header[:4] != b"FORM" or header[8:12] not in (b"AIFF", b"AIFC"):
        return None
    common, sound = b"", None
    for chunk in CHUNKS.walk(file, FIRST_CHUNK):
        file.seek(chunk.start)
        if chunk.name == b"COMM":
            common = file.read(min(chunk.size, COMMON_BYTES))
        elif chunk.name == b"SSND" and sound is None:
            sound = chunk
    if sound is None or len(common) < COMMON_BYTES - 4:
        return None  # the decoder knows the reason
    channels, _, bits = struct.unpack_from(">HIH", common)
    sample_rate = _extended(common[8:18])
    if not 0 < channels <= MAX_CHANNELS:
        return Layout("AIFF", (), Damage(f"has an impossible number of {channels} channels", None, "unreadable"))
    file.seek(sound.start)
    offset = int.from_bytes(file.read(4), "big")
    offset = offset if offset < sound.size else 0
    start = sound.start + SOUND_HEADER + offset
    encoding = common[18:22]
    block, n_samples = CODECS.get(encoding, ((SAMPLE_BITS.get(encoding, bits) + 7) // 8, 1))
    block = 1 if encoding in VARIABLE else max(1, block * channels)

    def stream(n_bytes: int) -> Stream:
        end = start + n_bytes
        sizes = [min(size, MAX_SIZE) for size in (end - 8, end - sound.start)]
        return Stream(0, end, ((4, struct.pack(">I", sizes[0])), (sound.start - 4, struct.pack(">I", sizes[1]))))

    stated = sound.size - SOUND_HEADER - offset
    samples = SampleData(
        container="AIFF",
        start=start,
        stated=None if stated <= 0 or is_unknown(sound.size) else stated,
        block=block,
        bytes_per_second=0 if encoding in VARIABLE else block * sample_rate / n_samples,
        stream=stream,
        end_of_chunks=CHUNKS.end_of_chunks,
        first_of_chunks=CHUNKS.first_of_chunks,
        codec_block=block,
    )
    return layout_of_samples(file, samples)


def _extended(data: bytes) -> float:
    """Value of a number of 80 bits; 0 if it is not finite or not a sample rate."""
    exponent, mantissa = struct.unpack(">HQ", data)
    return float(mantissa * 2.0 ** (exponent - 16383 - 63)) if exponent < 16383 + 64 else 0.0
