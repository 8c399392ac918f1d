"""Header of a WAV file that a program writes to a pipe."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO

# Start of a file, and of each chunk: name and size.
RIFF_HEADER, CHUNK_HEADER = struct.Struct("<4sI4s"), struct.Struct("<4sI")
# Format chunk: encoding, channels, sample rate, bytes a second, bytes and bits a sample; extensible: size, bits, mask.
FORMAT, EXTENSION = struct.Struct("<HHIIHH"), struct.Struct("<HHI")


@dataclass(frozen=True)
class WaveHeader:
    """Format of the samples that follow.

    Attributes:
        sample_rate: in Hz.
        channels: number of channels.
        channel_mask: a bit for the position of each channel; 0 if unknown.
    """

    sample_rate: int
    channels: int
    channel_mask: int


def read_wave_header(pipe: IO[bytes]) -> WaveHeader | None:
    """Read `pipe` up to its first sample; None if it ends before, or holds no WAV file."""
    if len(pipe.read(RIFF_HEADER.size)) < RIFF_HEADER.size:
        return None
    found = None
    while len(start := pipe.read(CHUNK_HEADER.size)) == CHUNK_HEADER.size:
        name, size = CHUNK_HEADER.unpack(start)
        if name == b"data":
            return found
        chunk = pipe.read(size)
        if name == b"fmt " and len(chunk) >= FORMAT.size:
            _, channels, sample_rate, *_ = FORMAT.unpack_from(chunk)
            extended = len(chunk) >= FORMAT.size + EXTENSION.size
            mask = EXTENSION.unpack_from(chunk, FORMAT.size)[2] if extended else 0
            found = WaveHeader(sample_rate, channels, mask)
    return None
