"""Decoding the bytes of a file in tests of framing."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import soundfile

from codectok.audio.decoding import decoded_streams
from codectok.audio.notes import DecodingNotes
from codectok.errors import AudioError


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


def decode(data: bytes) -> Decoded:
    """Decode all streams of a file up to its damage."""
    notes, streams, rates, error = DecodingNotes(), [], [], None
    try:
        for stream in decoded_streams(data, "x", notes):
            streams.append([np.zeros((0, stream.channels), np.float32)])
            rates.append(stream.sample_rate)
            for block in stream.blocks:
                streams[-1].append(block)
    except AudioError as exception:
        error = exception
    return Decoded([np.concatenate(blocks) for blocks in streams], rates, error, notes.unused_bytes)


@lru_cache
def plain(data: bytes) -> np.ndarray:
    """Samples [n, channels] by libsndfile alone."""
    samples: np.ndarray = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0]
    return samples
