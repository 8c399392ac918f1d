"""Framing of rare formats that libsndfile reads: Amiga SVX, AVR, Psion WVE, Akai MPC 2000 and MATLAB."""

from __future__ import annotations

import struct
from typing import BinaryIO

from codectok.audio.framing.chunked.chunks import ChunkFormat

from .layout import Damage, Layout, Stream
from .magic import MAT4_NAME, WVE_MAGIC
from .samples import DAMAGED_HEADER, SampleData, layout_of_samples

SVX_CHUNKS = ChunkFormat(struct.Struct(">4sI"))
SVX_KINDS = {b"8SVX": 1, b"16SV": 2}  # bytes per sample
SVX_FIRST_CHUNK = 12
AVR_HEADER = 128
WVE_HEADER, WVE_SAMPLE_RATE = 32, 8000
MPC_HEADER = 42
MATRIX_HEADER = 20  # of MAT-files, version 4
NUMBER_BYTES = {0: 8, 1: 4, 2: 4, 3: 2, 4: 2, 5: 1}
MAT5_HEADER = 512
MAT5_NUMBER_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8}


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
    if header[:4] != b"2BIT":
        return None
    if len(header) < AVR_HEADER:
        return Layout("AVR", (), Damage(DAMAGED_HEADER, None, "unreadable"))
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


def layout_of_mpc(file: BinaryIO) -> Layout | None:
    """Layout of an Akai MPC 2000 file, open at its start; None for other files."""
    header = file.read(MPC_HEADER)
    if len(header) < MPC_HEADER or header[:2] != b"\x01\x04" or header[38:39] != b"\x00" or header[21] > 1:
        return None
    block, n_frames = 2 * (header[21] + 1), int.from_bytes(header[30:34], "little")
    sample_rate = int.from_bytes(header[40:42], "little")
    return _layout_of_rest(file, "MPC2K", MPC_HEADER, n_frames * block, block, sample_rate * block)


def layout_of_mat4(file: BinaryIO) -> Layout | None:
    """Layout of a MAT-file of version 4 with a sample rate and samples, open at its start; None for other files."""
    header = file.read(MATRIX_HEADER)
    name = file.read(len(MAT4_NAME))
    if len(header) < MATRIX_HEADER or name != MAT4_NAME:
        return None
    order = "<" if header[:4] == bytes(4) else ">"
    rate = file.read(8)
    header = file.read(MATRIX_HEADER)
    if len(rate) < 8 or len(header) < MATRIX_HEADER:
        return None
    kind, channels, n_frames, _, name_length = struct.unpack(order + "5I", header)
    block = channels * NUMBER_BYTES.get(kind // 10 % 10, 1) or 1
    start = file.tell() + name_length
    return _layout_of_rest(file, "MAT4", start, n_frames * block, block, struct.unpack(order + "d", rate)[0] * block)


def layout_of_mat5(file: BinaryIO) -> Layout | None:
    """Layout of a MAT-file of version 5, open at its start; None for other files."""
    header = file.read(MAT5_HEADER)
    if not header.startswith(b"MATLAB 5.0 MAT-file") or header[126:128] not in (b"IM", b"MI"):
        return None
    order = "<" if header[126:128] == b"IM" else ">"
    sizes, name = header.partition(b"wavedata")[::2], header.find(b"samplerate")
    if len(sizes[0]) < 16 or len(sizes[1]) < 8 or name < 0:
        return None  # the decoder knows the reason
    channels = struct.unpack_from(order + "I", sizes[0], len(sizes[0]) - 16)[0]
    kind, size = struct.unpack_from(order + "II", sizes[1])
    tag = header[name + 16 : name + 24]  # kind and size in two bytes each, then a number
    sample_rate = struct.unpack_from(order + "HHH", tag)[2] if len(tag) == 8 else 0
    block = channels * MAT5_NUMBER_BYTES.get(kind, 1) or 1
    return _layout_of_rest(file, "MAT5", len(sizes[0]) + 16, size, block, sample_rate * block)


def _layout_of_rest(
    file: BinaryIO, container: str, start: int, stated: int, block: int, bytes_per_second: float
) -> Layout:
    """Layout of a file that has nothing but a header and samples, which libsndfile reads to the end."""

    def stream(n_bytes: int) -> Stream:
        return Stream(0, start + n_bytes)

    samples = SampleData(container, start, stated or None, block, bytes_per_second, stream, stops=False)
    return layout_of_samples(file, samples)
