"""Framing of Core Audio files (CAF)."""

from __future__ import annotations

import struct
from typing import BinaryIO

from codectok.audio.framing.layout import Damage, Layout, Stream
from codectok.audio.framing.magic import MAX_CHANNELS
from codectok.audio.framing.samples import SampleData, layout_of_samples

from .chunks import Chunk, ChunkFormat

FIRST_CHUNK = 8
CHUNKS = ChunkFormat(struct.Struct(">4sq"), padding=1)
DESCRIPTION = struct.Struct(">d4s5I")  # rate, encoding, flags, packet's bytes, packet's samples, channels, bits
READ_BYTES = 1 << 16
EDIT_COUNT = 4  # bytes before the samples
PACKETS = struct.Struct(">qqii")  # number of packets and of samples, and of samples that are not played


def layout_of_caf(file: BinaryIO) -> Layout | None:
    """Layout of a CAF file, open at its start; None for other files."""
    header = file.read(FIRST_CHUNK)
    if header[:6] != b"caff\x00\x01":
        return None
    found: dict[bytes, Chunk] = {}
    for chunk in CHUNKS.walk(file, FIRST_CHUNK):
        found.setdefault(chunk.name, chunk)
        if chunk.name == b"data":
            break
    data = found.get(b"data")
    description = _contents(file, found.get(b"desc"), DESCRIPTION.size)
    if data is None or len(description) < DESCRIPTION.size:
        return None  # the decoder knows the reason
    sample_rate, _, _, packet_bytes, packet_samples, channels, _ = DESCRIPTION.unpack(description)
    if not 0 < channels <= MAX_CHANNELS:
        return Layout("CAF", (), Damage(f"has an impossible number of {channels} channels", None, "unreadable"))
    start, stated = data.start + EDIT_COUNT, data.size - EDIT_COUNT
    per_second = packet_bytes * sample_rate / packet_samples if packet_samples else 0.0
    table = found.get(b"pakt")
    packets = _contents(file, table, PACKETS.size)
    if not packet_bytes and len(packets) == PACKETS.size:
        n_samples = PACKETS.unpack(packets)[1]
        per_second = stated * sample_rate / n_samples if n_samples > 0 else 0.0

    def stream(n_bytes: int) -> Stream:
        patches = [(data.start - 8, struct.pack(">q", n_bytes + EDIT_COUNT))]
        n_samples = None
        if table is not None and not packet_bytes and packet_samples and n_bytes < stated:
            count, end = _packets_within(file, table, n_bytes)
            n_samples = count * packet_samples
            patches.append((end, b"\x00"))  # a packet without bytes is the last one
        return Stream(0, start + n_bytes, tuple(patches), n_samples)

    samples = SampleData(
        container="CAF",
        start=start,
        stated=stated if 0 < stated < 1 << 62 else None,
        block=packet_bytes or 1,
        bytes_per_second=per_second,
        stream=stream,
        end_of_chunks=CHUNKS.end_of_chunks,
        first_of_chunks=CHUNKS.first_of_chunks,
        codec_block=packet_bytes,
    )
    return layout_of_samples(file, samples)


def _contents(file: BinaryIO, chunk: Chunk | None, size: int) -> bytes:
    if chunk is None:
        return b""
    file.seek(chunk.start)
    return file.read(max(0, min(chunk.size, size)))


def _packets_within(file: BinaryIO, table: Chunk, n_bytes: int) -> tuple[int, int]:
    """Number of packets in the first `n_bytes` bytes of the samples, and the end of their sizes in the table."""
    position = table.start + PACKETS.size
    file.seek(position)
    count = size = length = 0
    rest = max(0, table.size - PACKETS.size)
    while data := file.read(min(READ_BYTES, rest)):
        rest -= len(data)
        for byte in data:
            size, length = size << 7 | byte & 0x7F, length + 1
            if byte & 0x80:
                continue
            n_bytes -= size
            if n_bytes < 0:
                return count, position
            position += length
            count, size, length = count + 1, 0, 0
    return count, position
