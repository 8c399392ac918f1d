"""Audio files that are changed on purpose, and the way they are read."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

from codectok.audio.decoding import decoded_streams
from codectok.audio.notes import DecodingNotes
from codectok.errors import AudioError

from .audio import tone

SAMPLE_RATE = 8000


@dataclass(frozen=True)
class Decoded:
    """Samples [n, channels] of each stream, its rate, the error that ended them and the unused bytes."""

    streams: list[np.ndarray]
    rates: list[int]
    error: AudioError | None
    unused_bytes: int

    @property
    def samples(self) -> np.ndarray:
        """All samples [n, channels]."""
        return np.concatenate(self.streams)

    @property
    def seconds(self) -> float:
        """Duration of all samples."""
        return sum(len(samples) / rate for samples, rate in zip(self.streams, self.rates, strict=True))

    @property
    def rejected(self) -> float | None:
        """Duration of the audio that was not decoded; None if unknown."""
        return self.error.seconds if self.error else 0.0


def decode(source: bytes | Path) -> Decoded:
    """Decode all streams of a file up to its damage."""
    notes, streams, rates, error = DecodingNotes(), [], [], None
    try:
        for stream in decoded_streams(source, "a file", notes):
            streams.append([np.zeros((0, stream.channels), np.float32)])
            rates.append(stream.sample_rate)
            for block in stream.blocks:
                streams[-1].append(block)
    except AudioError as exception:
        error = exception
    return Decoded([np.concatenate(blocks) for blocks in streams], rates, error, notes.unused_bytes)


@dataclass(frozen=True)
class Reading:
    """Outcome of reading a file.

    Attributes:
        samples: float32 [n, channels] of all streams, before any damage.
        streams: number of streams.
        unused_bytes: bytes that were left out.
        error: damage at the end; None if the file is whole.
    """

    samples: np.ndarray
    streams: int
    unused_bytes: int
    error: AudioError | None


def read(source: bytes | Path) -> Reading:
    """Read a file to its end or its damage."""
    found = decode(source)
    samples = found.samples if found.streams else np.zeros((0, 1), np.float32)
    return Reading(samples, len(found.streams), found.unused_bytes, found.error)


def encoded(
    container: str, encoding: str = "PCM_16", seconds: float = 2.0, endian: str = "FILE", seed: int = 0
) -> bytes:
    """Return a sound mono file at 8 kHz."""
    buffer = io.BytesIO()
    samples = tone(seconds, SAMPLE_RATE, seed=seed)
    soundfile.write(buffer, samples, SAMPLE_RATE, format=container, subtype=encoding, endian=endian)
    return buffer.getvalue()


@lru_cache
def plain(data: bytes) -> np.ndarray:
    """Samples of a sound file by libsndfile alone, float32 [n, channels]."""
    samples: np.ndarray = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0]
    return samples


def chunk(name: bytes, contents: bytes, order: str = "<") -> bytes:
    """Return a padded chunk."""
    return name + struct.pack(order + "I", len(contents)) + contents + bytes(len(contents) % 2)
