"""Audio files that are changed on purpose, and the way they are read."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from codectok.audio.decoding import decoded_streams
from codectok.audio.notes import DecodingNotes
from codectok.errors import AudioError
from tests.helpers.audio import tone

SAMPLE_RATE = 8000


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
    blocks: list[np.ndarray] = []
    notes, streams, error = DecodingNotes(), 0, None
    try:
        for stream in decoded_streams(source, "a file", notes):
            streams += 1
            blocks += stream.blocks
    except AudioError as caught:
        error = caught
    samples = np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)
    return Reading(samples, streams, notes.unused_bytes, error)


def encoded(
    container: str, encoding: str = "PCM_16", seconds: float = 2.0, endian: str = "FILE", seed: int = 0
) -> bytes:
    """Return a sound mono file at 8 kHz."""
    buffer = io.BytesIO()
    samples = tone(seconds, SAMPLE_RATE, seed=seed)
    soundfile.write(buffer, samples, SAMPLE_RATE, format=container, subtype=encoding, endian=endian)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    """Samples of a sound file, as libsndfile decodes them: float32 [n, channels]."""
    samples: np.ndarray = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0]
    return samples


def chunk(name: bytes, contents: bytes, order: str = "<") -> bytes:
    """Return a padded chunk."""
    return name + struct.pack(order + "I", len(contents)) + contents + bytes(len(contents) % 2)
