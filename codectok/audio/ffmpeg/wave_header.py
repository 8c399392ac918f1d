"""Header of a WAV file that a program writes to a pipe."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO

from codectok.audio.framing.chunked.wave_format import WaveFormat

# Start of a file, and of each chunk: name and size.
RIFF_HEADER, CHUNK_HEADER = struct.Struct("<4sI4s"), struct.Struct("<4sI")
MASK = struct.Struct("<I")
MASK_OFFSET = 20  # in an extensible format chunk


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
        samples = WaveFormat.parse(chunk) if name == b"fmt " else None
        if samples is not None:
            mask = MASK.unpack_from(chunk, MASK_OFFSET)[0] if len(chunk) >= MASK_OFFSET + MASK.size else 0
            found = WaveHeader(samples.sample_rate, samples.channels, mask)
    return None
