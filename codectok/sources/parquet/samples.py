"""Decoded samples in columns, as audio files in memory."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codectok.audio.files import SAMPLE_RATES
from codectok.audio.waveform import MAX_CHANNELS
from codectok.errors import AudioError

from .columns import plain_type

# A WAV header for float samples: RIFF, size, WAVE, "fmt ", 16, encoding 3, channels, rate, bytes per second and per
# frame, bits, "data", size.
WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
IEEE_FLOAT, SAMPLE_BYTES = 3, 4
INT16_SCALE = np.float32(1 / 32_768)


def sample_rate_of(value: object, row: str) -> int:
    """Check a sampling rate; raises an `AudioError` without a usable one."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value in SAMPLE_RATES:
        return int(value)
    problem = "no sampling rate (a field or column sampling_rate)"
    if value is not None:
        problem = f"an impossible sampling rate of {value!r}"
    raise AudioError(f"The samples in {row} have {problem}.", "unreadable")


def wav_of(values: pa.Array, sample_rate: int, row: str) -> bytes:
    """Return decoded samples as a WAV file, floats as they are.

    Args:
        values: a list of numbers, or of lists with the numbers of each channel (or of each frame: the longer dimension
            is time); floats, or int16, which are divided by 32,768.
        sample_rate: in Hz.
        row: names the row, for messages.

    Raises:
        AudioError: integers of another type, channels of different lengths, too many channels or samples.
    """
    samples = _samples(values, row)
    if samples.ndim == 1:
        samples = samples[:, None]
    elif len(samples) <= samples.shape[1]:
        samples = samples.T
    n_samples, channels = samples.shape
    if channels > MAX_CHANNELS:
        raise AudioError(f"There are {channels} channels in {row}; at most {MAX_CHANNELS} are read.", "unreadable")
    size = n_samples * channels * SAMPLE_BYTES
    if WAV_HEADER.size + size >= 1 << 32:
        raise AudioError(f"There are {n_samples:,} samples in {row}, too many for one row.", "unreadable")
    header = WAV_HEADER.pack(
        *(b"RIFF", WAV_HEADER.size - 8 + size, b"WAVE", b"fmt ", 16, IEEE_FLOAT, channels, sample_rate),
        *(sample_rate * channels * SAMPLE_BYTES, channels * SAMPLE_BYTES, 8 * SAMPLE_BYTES, b"data", size),
    )
    return header + np.ascontiguousarray(samples, "<f4").tobytes()


def _samples(values: pa.Array, row: str) -> np.ndarray:
    """Return float32 [n] or [rows, columns]."""
    kind = plain_type(values.type)
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return _floats(values, row)
    lengths = set(pc.list_value_length(values).to_pylist())
    if len(lengths) > 1 or None in lengths:
        raise AudioError(f"The channels in {row} have different lengths.", "unreadable")
    rows: np.ndarray[Any, Any] = _floats(values.flatten(), row).reshape(len(values), lengths.pop() if lengths else 0)
    return rows


def _floats(values: pa.Array, row: str) -> np.ndarray:
    # Missing numbers become NaN, which the decoder reports with their place.
    numbers = values.to_numpy(zero_copy_only=False)
    if pa.types.is_int16(values.type) and not values.null_count:
        return np.asarray(numbers * INT16_SCALE, np.float32)
    if pa.types.is_integer(values.type):
        message = f"The samples in {row} are {values.type}, whose scale is unknown; store floats or int16."
        raise AudioError(message, "unreadable")
    with np.errstate(over="ignore"):  # too large for float32 is infinite, which the decoder reports
        return np.asarray(numbers, np.float32)
