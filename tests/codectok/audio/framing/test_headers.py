"""Headers that are not to be believed, and files that only look like audio."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest

from codectok.audio.framing.detect import layout_of
from codectok.audio.framing.view import BoundedReader
from tests.helpers.framing import encoded, plain, read


@pytest.mark.parametrize("suffix", ["au", "snd", "vox", "gsm", "wav", "aiff"])
@pytest.mark.parametrize("contents", [b"words, not samples\n" * 100, bytes(50_000), bytes(range(256)) * 20])
def test_file_without_header_is_unreadable(suffix: str, contents: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(contents)
    reading = read(path)
    assert len(reading.samples) == 0
    assert reading.error is not None and reading.error.reason in ("unreadable", "unsupported")


@pytest.mark.parametrize("contents", [b".snd is the magic number of AU files\n" * 50, b".snd" + bytes(1000)])
def test_text_with_the_magic_of_au_is_unreadable(contents: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.au"
    path.write_bytes(contents)
    for source in (path, contents):
        reading = read(source)
        assert len(reading.samples) == 0
        assert reading.error is not None and reading.error.reason == "unreadable"


@pytest.mark.parametrize("field", [4, 12, 16, 20])
def test_damaged_header_of_au_is_unreadable(field: int) -> None:
    data = bytearray(encoded("AU"))
    for value in (0, 0xFFFF_FFFF):
        data[field : field + 4] = struct.pack(">I", value)
        if (field, value) == (16, 0xFFFF_FFFF):
            continue  # a sample rate that the reader refuses
        reading = read(bytes(data))
        assert len(reading.samples) == 0
        assert reading.error is not None and reading.error.reason == "unreadable"


@pytest.mark.parametrize("n_frames", [0, 1, 0xFFFF_FFFF])
def test_number_of_frames_of_aiff_does_not_matter(n_frames: int) -> None:
    data = bytearray(encoded("AIFF"))
    place = data.index(b"COMM") + 10
    data[place : place + 4] = struct.pack(">I", n_frames)
    reading = read(bytes(data))
    assert reading.error is None
    np.testing.assert_array_equal(reading.samples, plain(encoded("AIFF")))


def test_little_endian_au_is_kept_to_the_cut() -> None:
    data = encoded("AU", endian="LITTLE")
    reading = read(data[: len(data) // 2])
    assert reading.error is not None and reading.error.seconds == pytest.approx(1.0, abs=0.01)
    np.testing.assert_array_equal(reading.samples, plain(data)[: len(reading.samples)])


def test_samples_beyond_the_end_of_the_file_are_a_damaged_header() -> None:
    data = bytearray(encoded("AIFF"))
    place = data.index(b"SSND") + 4
    data[place : place + 8] = struct.pack(">II", 3_000_000_000, 2_000_000_000)
    reading = read(bytes(data))
    assert reading.error is not None and reading.error.reason == "unreadable" and "header" in str(reading.error)


def test_compressed_sphere_is_refused() -> None:
    data = encoded("NIST")
    coding = b"sample_coding -s26 pcm,embedded-shorten-v2.00"
    changed = data[:1024].replace(b"sample_coding -s3 pcm", coding)[:1024] + data[1024:]
    assert coding in changed
    reading = read(changed)
    assert len(reading.samples) == 0
    assert reading.error is not None and "shorten" in str(reading.error) and reading.error.reason == "unreadable"


def test_sphere_without_count_is_read_to_the_end() -> None:
    data = encoded("NIST")
    reading = read(data.replace(b"sample_count -i 16000", b"sample_count -i 0    "))
    assert reading.error is None
    np.testing.assert_array_equal(reading.samples, plain(data))


@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF", "VOC", "NIST", "SVX", "AVR", "MAT5"])
def test_file_that_ends_in_its_header_is_an_error(container: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = encoded(container)
    for length in (5, 13, 21, 30, 41):
        reading = read(data[:length])
        assert len(reading.samples) <= 10
        assert reading.error is not None
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF", "VOC", "NIST", "SVX", "AVR", "MAT5"])
def test_flipped_bits_of_headers_end_in_samples_or_a_sentence(container: str) -> None:
    data = encoded(container, seconds=0.1)
    for bit in range(0, 8 * 80, 7):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        error = read(bytes(changed)).error
        assert error is None or str(error).endswith(".")


@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF", "VOC", "NIST", "SVX", "FLAC", "OGG"])
def test_positions_beyond_the_file_system_are_no_error_of_the_disk(container: str, tmp_path: Path) -> None:
    """A chunk of 2^46 bytes and more ends where no file system lets a file be."""
    data = encoded(container, "VORBIS" if container == "OGG" else "PCM_16", seconds=0.1)
    for number in (b"\x7f\xff\xff\xff", b"\x00\x00\x7f\xff", b"\xff\xff\xff\x7f"):
        for place in range(120):
            (tmp_path / "a").write_bytes(data[:place] + number + data[place + 4 :])
            with BoundedReader(io.FileIO(tmp_path / "a")) as file:
                layout = layout_of(file)
            assert layout is None or all(stream.end <= len(data) for stream in layout.streams)
