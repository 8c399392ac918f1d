"""Behaviour that all containers share which state how many bytes of samples they have."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codectok.audio.framing.detect import layout_of
from tests.helpers.framing import SAMPLE_RATE, chunk, encoded, plain, read
from tests.helpers.jobs import rejects, run, shard_job
from tests.helpers.tars import read_samples

CONTAINERS = [
    *(("WAV", encoding) for encoding in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")),
    *(("WAV", encoding) for encoding in ("IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32", "NMS_ADPCM_16")),
    *(("WAVEX", encoding) for encoding in ("PCM_16", "PCM_24", "FLOAT")),
    *(("RF64", encoding) for encoding in ("PCM_16", "FLOAT")),
    *(("W64", encoding) for encoding in ("PCM_16", "PCM_24", "IMA_ADPCM")),
    *(("AIFF", encoding) for encoding in ("PCM_16", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM", "GSM610")),
    *(("AU", encoding) for encoding in ("PCM_16", "PCM_24", "FLOAT", "ULAW", "ALAW", "G721_32")),
    *(("VOC", encoding) for encoding in ("PCM_U8", "PCM_16", "ULAW")),
    *(("NIST", encoding) for encoding in ("PCM_16", "PCM_24", "ULAW", "ALAW")),
    *(("CAF", encoding) for encoding in ("PCM_16", "PCM_24", "FLOAT", "ALAC_16")),
    *((container, "PCM_16") for container in ("SVX", "AVR", "MAT4", "MAT5", "MPC2K")),
]
OF_BLOCKS = ("IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32", "NMS_ADPCM_16", "ALAC_16")
LONGEST_BLOCK = 4096  # samples of a packet of ALAC
# The offset of the size of the samples, its format, and the bytes that it counts besides them.
SIZES: dict[str, tuple[Callable[[bytes], int], str, int]] = {
    "WAV": (lambda data: data.index(b"data") + 4, "<I", 0),
    "RF64": (lambda data: data.index(b"ds64") + 16, "<Q", 0),
    "W64": (lambda data: data.index(b"data") + 16, "<Q", 24),
    "AIFF": (lambda data: data.index(b"SSND") + 4, ">I", 8),
    "AU": (lambda data: 8, ">I", 0),
    "CAF": (lambda data: data.index(b"data") + 4, ">Q", 4),
    "SVX": (lambda data: data.index(b"BODY") + 4, ">I", 0),
}
containers = pytest.mark.parametrize(("container", "encoding"), CONTAINERS)
sized = pytest.mark.parametrize("container", SIZES)


def with_size(data: bytes, container: str, size: int) -> bytes:
    """Replace the size of the samples, given without the bytes that the container counts besides them."""
    place, number, more = SIZES[container]
    bits = 8 * struct.calcsize(number)
    changed = bytearray(data)
    struct.pack_into(number, changed, place(data), min(size + more, (1 << bits) - 1))
    return bytes(changed)


@containers
def test_whole_file_is_decoded_as_it_is(container: str, encoding: str) -> None:
    data = encoded(container, encoding)
    reading = read(data)
    assert (reading.error, reading.streams, reading.unused_bytes) == (None, 1, 0)
    np.testing.assert_array_equal(reading.samples, plain(data))


@containers
@pytest.mark.parametrize("share", [0.5, 0.83])
def test_cut_off_file_keeps_all_samples_before_the_cut(container: str, encoding: str, share: float) -> None:
    data = encoded(container, encoding)
    whole, reading = plain(data), read(data[: int(share * len(data))])
    assert reading.error is not None and "cut off" in str(reading.error) and reading.error.reason == "decode_error"
    np.testing.assert_array_equal(reading.samples, whole[: len(reading.samples)])
    length = len(whole) / SAMPLE_RATE
    assert len(reading.samples) / SAMPLE_RATE == pytest.approx(
        share * length, abs=0.6 if encoding == "ALAC_16" else 0.3
    )
    assert reading.error.seconds is not None
    lost = length - len(reading.samples) / SAMPLE_RATE
    assert reading.error.seconds == pytest.approx(lost, abs=0.55 if encoding == "ALAC_16" else 0.13)


@containers
def test_file_that_lacks_a_byte_is_kept(container: str, encoding: str) -> None:
    data = encoded(container, encoding)
    whole, reading = plain(data), read(data[:-1])
    assert reading.error is None
    missing = len(whole) - len(reading.samples)
    assert missing <= (LONGEST_BLOCK if encoding in OF_BLOCKS else 1)
    exact = len(reading.samples) - (320 if encoding == "GSM610" else 0)  # libsndfile fills up its last block
    np.testing.assert_array_equal(reading.samples[:exact], whole[:exact])


@containers
def test_joined_files_are_all_decoded(container: str, encoding: str) -> None:
    # libsndfile decodes a block too many of a whole file with an odd number of blocks of GSM.
    first, second = encoded(container, encoding), encoded(container, encoding, 1.2, seed=1)
    reading = read(first + second + first)
    assert (reading.error, reading.unused_bytes) == (None, 0)
    if container != "MPC2K":  # has no mark that could be recognized inside a file
        expected = [plain(first), plain(second), plain(first)]
        assert reading.streams == 3
        np.testing.assert_array_equal(reading.samples, np.concatenate(expected))


@containers
def test_bytes_behind_the_samples_are_not_decoded(container: str, encoding: str) -> None:
    data = encoded(container, encoding)
    tail = b"\x91\x07 these are no samples \xfe" * 9
    reading = read(data + tail)
    assert reading.error is None
    assert len(tail) <= reading.unused_bytes <= len(tail) + 1
    np.testing.assert_array_equal(reading.samples, plain(data))


@containers
@pytest.mark.parametrize("tail", [bytes(700), b"TAG" + b" " * 125, b"ID3\x03\0\0\0\0\0\x05abcde"])
def test_padding_and_tags_are_not_decoded(container: str, encoding: str, tail: bytes) -> None:
    data = encoded(container, encoding)
    reading = read(data + tail)
    assert reading.error is None and reading.unused_bytes <= 1
    np.testing.assert_array_equal(reading.samples, plain(data)[: len(reading.samples)])
    assert len(reading.samples) == len(plain(data))


@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "VOC"])
def test_file_behind_a_cut_off_one_is_not_moved(container: str) -> None:
    data = encoded(container)
    reading = read(data[: len(data) // 2] + data)
    assert reading.error is not None and "another file follows" in str(reading.error)
    np.testing.assert_array_equal(reading.samples, plain(data)[: len(reading.samples)])
    assert reading.error.seconds == pytest.approx(3.0, abs=0.4)  # with the header of the second


@sized
@pytest.mark.parametrize("size", [0, 100, 4096])
def test_header_of_the_first_flush_is_not_believed(container: str, size: int) -> None:
    data = encoded(container)
    reading = read(with_size(data, container, size))
    assert (reading.error, reading.unused_bytes) == (None, 0)
    np.testing.assert_array_equal(reading.samples, plain(data))


@pytest.mark.parametrize("container", ["WAV", "AIFF", "AU"])
@pytest.mark.parametrize(
    "size", [0x7F00_0000, 0x7FFF_0000 - 36, 0x7FFF_F000, 0x7FFF_FFD3, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]
)
def test_size_of_a_pipe_means_unknown(container: str, size: int) -> None:
    data = encoded(container)
    changed = with_size(data, container, size - SIZES[container][2])
    if size == 0x7FFF_0000 - 36:
        assert read(changed).error is not None  # no program writes it: the file could be a half
        return
    reading = read(changed)
    assert (reading.error, reading.unused_bytes) == (None, 0)
    np.testing.assert_array_equal(reading.samples, plain(data))
    joined = read(changed + changed)
    assert joined.streams == 2 and len(joined.samples) == 2 * len(reading.samples)


@pytest.mark.parametrize("container", ["RF64", "W64", "CAF"])
@pytest.mark.parametrize("size", [(1 << 63) - 30, (1 << 64) - 1])
def test_size_of_a_pipe_in_64_bits_means_unknown(container: str, size: int) -> None:
    data = encoded(container)
    reading = read(with_size(data, container, size))
    assert reading.error is None
    np.testing.assert_array_equal(reading.samples, plain(data))


@sized
@pytest.mark.parametrize("error", [1, 36, 44, 100])
def test_header_that_is_a_little_too_large_is_not_damage(container: str, error: int) -> None:
    data = encoded(container)
    size = 2 * len(plain(data)) + error
    reading = read(with_size(data, container, size))
    assert (reading.error, reading.unused_bytes) == (None, 0)
    np.testing.assert_array_equal(reading.samples, plain(data))
    joined = read(with_size(data, container, size) + data)
    assert (joined.error, joined.streams) == (None, 2)
    np.testing.assert_array_equal(joined.samples, np.concatenate([plain(data)] * 2))


@sized
def test_lost_header_update_is_a_reject_with_its_place(container: str) -> None:
    data = encoded(container, seconds=4.0)
    n_bytes = 2 * len(plain(data))
    reading = read(with_size(data, container, n_bytes * 5 // 8))
    assert len(reading.samples) == pytest.approx(2.5 * SAMPLE_RATE, abs=2)
    assert reading.error is not None and reading.error.seconds == pytest.approx(1.5, abs=0.01)


def test_files_of_different_formats_are_joined() -> None:
    parts = [encoded(container) for container in ("WAV", "AIFF", "CAF", "AU", "W64", "RF64", "VOC", "NIST", "FLAC")]
    reading = read(b"".join(parts))
    assert (reading.error, reading.streams) == (None, len(parts))
    np.testing.assert_array_equal(reading.samples, np.concatenate([plain(part) for part in parts]))


def test_header_that_is_written_twice_is_read_once(tmp_path: Path) -> None:
    data = encoded("W64")
    start = data.index(b"data") + 24
    empty, final = with_size(data, "W64", 0)[:start], data[:start]
    for source in (empty + data, empty + empty + data[start:] + final, empty + data[start:] + final + data):
        reading = read(source)
        assert reading.error is None
        assert len(reading.samples) in (len(plain(data)), 2 * len(plain(data)))


def test_layout_of_many_files_takes_linear_time() -> None:
    data = encoded("WAV", seconds=0.01)
    layout = layout_of(io.BytesIO(data * 3000))
    assert layout is not None and len(layout.streams) == 3000


def test_shard_accounts_for_every_second(tmp_path: Path) -> None:
    corpus = tmp_path / "in"
    corpus.mkdir()
    data, large = encoded("WAV", seconds=6.0), encoded("AIFF", seconds=6.0)
    (corpus / "joined.wav").write_bytes(data + data)
    (corpus / "unknown.wav").write_bytes(with_size(data, "WAV", 0) + chunk(b"LIST", b"INFO"))
    (corpus / "half.aiff").write_bytes(large[: len(large) // 2])
    (corpus / "text.au").write_bytes(b"Notes, not samples.\n" * 500)
    run(shard_job(segmenter="fixed", max_seconds=1.0, min_seconds=0.1), corpus, tmp_path / "out")
    kept = [sample.duration for path in (tmp_path / "out").glob("*.tar") for sample, _ in read_samples(path)]
    assert sum(kept) == pytest.approx(12 + 6 + 3, abs=1.01)  # the segment before the cut may be rejected
    rows = {str(row["source"]).rpartition("/")[2]: row for row in rejects(tmp_path / "out")}
    assert set(rows) == {"half.aiff", "text.au"}
    assert (rows["half.aiff"]["reason"], rows["text.au"]["reason"]) == ("decode_error", "unreadable")
