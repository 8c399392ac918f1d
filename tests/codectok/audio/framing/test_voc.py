from __future__ import annotations

import struct

import numpy as np
import pytest

from tests.helpers.framing import SAMPLE_RATE, encoded, plain, read

HEADER = b"Creative Voice File\x1a" + struct.pack("<HHH", 26, 0x0114, 0x111F)


def block(kind: int, contents: bytes) -> bytes:
    return bytes([kind]) + struct.pack("<I", len(contents))[:3] + contents


def sound(samples: bytes, sample_rate: int = SAMPLE_RATE) -> bytes:
    return block(9, struct.pack("<IBBHI", sample_rate, 16, 1, 4, 0) + samples)


@pytest.fixture
def samples() -> bytes:
    return encoded("WAV")[44:]


def test_blocks_are_decoded_without_their_headers(samples: bytes) -> None:
    expected = plain(encoded("WAV"))
    pieces = [samples[start : start + 4096] for start in range(0, len(samples), 4096)]
    continued = sound(pieces[0]) + b"".join(block(2, piece) for piece in pieces[1:])
    repeated = b"".join(map(sound, pieces))
    with_text = sound(pieces[0]) + block(5, b"words\0") + b"".join(block(2, piece) for piece in pieces[1:])
    for blocks in (continued, repeated, with_text):
        for end in (b"\0", b""):
            reading = read(HEADER + blocks + end)
            assert (reading.error, reading.streams, reading.unused_bytes) == (None, 1, 0)
            np.testing.assert_array_equal(reading.samples, expected)
        half = read(HEADER + blocks[: len(blocks) // 2])
        assert half.error is None or "cut off" in str(half.error)
        np.testing.assert_array_equal(half.samples, expected[: len(half.samples)])
        assert len(half.samples) == pytest.approx(SAMPLE_RATE, abs=2048)


def test_blocks_of_another_rate_are_a_stream(samples: bytes) -> None:
    reading = read(HEADER + sound(samples) + sound(samples, 16_000) + b"\0")
    assert (reading.error, reading.streams) == (None, 2)
    np.testing.assert_array_equal(reading.samples, np.concatenate([plain(encoded("WAV"))] * 2))


def test_size_that_forgets_bytes_loses_no_samples(samples: bytes) -> None:
    blocks = bytearray(sound(samples))
    blocks[1:4] = struct.pack("<I", len(samples) + 4)[:3]  # as sox writes it
    reading = read(HEADER + bytes(blocks) + b"\0")
    assert (reading.error, reading.unused_bytes) == (None, 0)
    np.testing.assert_array_equal(reading.samples, plain(encoded("WAV")))


def test_silence_ends_the_usable_samples(samples: bytes) -> None:
    reading = read(HEADER + sound(samples) + block(3, b"\x10\x27\x83") + block(2, samples) + b"\0")
    assert reading.error is not None and "silence" in str(reading.error)
    np.testing.assert_array_equal(reading.samples, plain(encoded("WAV")))


def test_old_blocks_of_8_bits_are_read() -> None:
    data = encoded("VOC", "PCM_U8")
    start = 26 + 6
    pieces = [data[start : start + 5000], data[start + 5000 : -1]]
    reading = read(data[:26] + block(1, data[30:32] + pieces[0]) + block(2, pieces[1]) + b"\0")
    assert reading.error is None
    np.testing.assert_array_equal(reading.samples, plain(data))


def test_size_beyond_24_bits_is_read_to_the_end() -> None:
    data = encoded("WAV", seconds=0.5)[44:]
    samples = data * (((1 << 24) + 1_000_000) // len(data))
    blocks = bytearray(sound(samples[:1000]) + samples[1000:])
    blocks[1:4] = struct.pack("<I", len(samples) + 12)[:3]
    reading = read(HEADER + bytes(blocks) + b"\0")
    assert reading.error is None
    assert len(reading.samples) == len(samples) // 2
