from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectok import AudioError, read_audio
from codectok.audio.framing.chunked import riff
from tests.helpers.audio import tone
from tests.helpers.framing import SAMPLE_RATE, chunk, encoded, plain, read

INFO = chunk(b"LIST", b"INFOISFT\x0e\0\0\0Lavf59.27.100\0")


def parts_of(data: bytes) -> tuple[bytes, bytes]:
    """Split a WAV file into the format chunk and the samples."""
    start = data.index(b"data")
    return data[12:start], data[start + 8 :]


def riff_of(*chunks: bytes, magic: bytes = b"RIFF") -> bytes:
    contents = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(contents)) + contents


@pytest.mark.parametrize(
    "behind",
    [
        INFO,
        INFO[:-5],
        chunk(b"id3 ", b"odd"),
        chunk(b"id3 ", b"odd")[:-1],
        chunk(b"abcd", b"unknown") + INFO,
        INFO * 20,
    ],
)
@pytest.mark.parametrize("before", [b"", INFO, chunk(b"JUNK", bytes(40_000)), chunk(b"bext", b"odd")])
def test_chunks_around_the_samples_are_not_decoded(before: bytes, behind: bytes) -> None:
    data = encoded("WAV")
    header, samples = parts_of(data)
    for size in (None, 0, 0xFFFF_FFFF):
        changed = riff_of(before, header, before, chunk(b"data", samples), behind)
        if size is not None:
            place = changed.index(b"data" + struct.pack("<I", len(samples))) + 4
            changed = changed[:place] + struct.pack("<I", size) + changed[place + 4 :]
        if size is not None and behind[:4] not in (b"LIST", b"id3 "):
            continue  # only usual chunks are certain behind an unknown size
        if size is not None and behind == INFO[:-5]:
            continue
        reading = read(changed)
        assert (reading.error, reading.unused_bytes) == (None, 0)
        np.testing.assert_array_equal(reading.samples, plain(data))


def test_wrong_size_of_file_does_not_matter() -> None:
    data = encoded("WAV")
    for size in (0, 36, 1000, len(data), 0xFFFF_FFFF):
        reading = read(data[:4] + struct.pack("<I", size) + data[8:])
        assert reading.error is None
        np.testing.assert_array_equal(reading.samples, plain(data))


def test_empty_file_with_chunks_behind_has_no_samples() -> None:
    header, _ = parts_of(encoded("WAV"))
    reading = read(riff_of(header, chunk(b"data", b""), INFO))
    assert (len(reading.samples), reading.error) == (0, None)


def test_several_data_chunks_follow_one_another() -> None:
    data = encoded("WAV")
    header, samples = parts_of(data)
    pieces = [samples[:1000], samples[1000:5002], samples[5002:]]
    reading = read(riff_of(header, *(chunk(b"data", piece) + INFO for piece in pieces)))
    assert (reading.error, reading.streams) == (None, 1)
    np.testing.assert_array_equal(reading.samples, plain(data))
    cut = read(riff_of(header, *(chunk(b"data", piece) for piece in pieces))[:-8000])
    assert cut.error is not None and cut.error.seconds == pytest.approx(0.5)
    np.testing.assert_array_equal(cut.samples, plain(data)[:-4000])


def test_big_endian_file_is_kept_to_the_cut() -> None:
    data = encoded("WAV", endian="BIG")
    assert data[:4] == b"RIFX"
    np.testing.assert_array_equal(read(data).samples, plain(data))
    reading = read(data[:20_001])
    assert reading.error is not None
    np.testing.assert_array_equal(reading.samples, plain(data)[: (20_001 - 44) // 2])


def test_bw64_is_read_as_rf64() -> None:
    data = encoded("RF64")
    for changed in (b"BW64" + data[4:], b"BW64" + encoded("WAV")[4:]):
        reading = read(changed)
        assert reading.error is None
        np.testing.assert_array_equal(reading.samples, plain(data))
    half = read(b"BW64" + data[4 : len(data) // 2])
    assert half.error is not None and half.error.seconds == pytest.approx(1.0, abs=0.01)


def test_samples_beyond_the_limit_of_riff_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded("WAV", "PCM_24")
    monkeypatch.setattr(riff, "MAX_SIZE", 10_000)
    place = data.index(b"data") + 4
    reading = read(data[:place] + b"\xff\xff\xff\xff" + data[place + 4 :])
    assert reading.error is None
    np.testing.assert_array_equal(reading.samples, plain(data))


def mp3_in_riff(seconds: float = 3.0) -> bytes:
    """Return frames of MP3 in a WAV file that counts the padding of the encoder, as ffmpeg writes it."""
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(seconds, 24_000), 24_000, format="MP3", bitrate_mode="CONSTANT")
    data = buffer.getvalue()
    frames = data[data.index(data[:2], 4) :]  # without the frame that holds the length
    header = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 24_000, 0, 576, 0, 12, 1, 2, 576, 1, 1393)
    samples = struct.pack("<I", round(24_000 * seconds) + 2000)
    return riff_of(chunk(b"fmt ", header), chunk(b"fact", samples), INFO, chunk(b"data", frames), INFO)


def test_padding_of_mp3_in_wav_is_not_damage() -> None:
    data = mp3_in_riff()
    reading = read(data)
    assert reading.error is None
    assert len(reading.samples) == pytest.approx(3 * 24_000, abs=2500)
    assert len(read(data + data).samples) == 2 * len(reading.samples)
    half = read(data[: len(data) // 2])
    assert half.error is not None and "cut off" in str(half.error)
    assert half.error.seconds == pytest.approx(1.5, abs=0.2)
    assert len(half.samples) == pytest.approx(1.5 * 24_000, abs=3000)
    # The first samples of the last frame depend on the frame behind it.
    np.testing.assert_array_equal(half.samples[:-1200], reading.samples[: len(half.samples) - 1200])


def test_silence_behind_an_unknown_size_is_kept() -> None:
    header, samples = parts_of(encoded("WAV"))
    data = riff_of(header, chunk(b"data", bytes(len(samples))))
    place = data.index(b"data") + 4
    assert len(read(data[:place] + bytes(4) + data[place + 4 :]).samples) == len(samples) // 2


@pytest.mark.parametrize("channels", [0, 255, 1023, 1024, 65_535])
def test_impossible_number_of_channels_is_unreadable(channels: int) -> None:
    data = bytearray(encoded("WAV"))
    data[22:24] = struct.pack("<H", channels)
    reading = read(bytes(data))
    assert len(reading.samples) == 0
    assert reading.error is not None and reading.error.reason == "unreadable" and "channels" in str(reading.error)


def test_wrong_block_size_is_not_believed() -> None:
    data = bytearray(encoded("WAV"))
    data[32:34] = bytes(2)
    np.testing.assert_array_equal(read(bytes(data)).samples, plain(encoded("WAV")))


PIPES = {
    "sox wav": "sox {source} -t wav - | cat > {target}",
    "sox aiff": "sox {source} -t aiff - | cat > {target}",
    "sox au": "sox {source} -t au - | cat > {target}",
    "sox w64": "sox {source} -t w64 - | cat > {target}",
    "sox caf": "sox {source} -t caf - | cat > {target}",
    "sox voc": "sox {source} -t voc {target}",
    "ffmpeg wav": "ffmpeg -v error -i {source} -f wav - | cat > {target}",
    "ffmpeg rf64": "ffmpeg -v error -i {source} -f wav -rf64 always - | cat > {target}",
    "ffmpeg w64": "ffmpeg -v error -i {source} -f w64 - | cat > {target}",
    "ffmpeg aiff": "ffmpeg -v error -i {source} -f aiff - | cat > {target}",
    "ffmpeg au": "ffmpeg -v error -i {source} -f au - | cat > {target}",
    "ffmpeg caf": "ffmpeg -v error -i {source} -f caf - | cat > {target}",
    "ffmpeg voc": "ffmpeg -v error -i {source} -f voc - | cat > {target}",
}


@pytest.mark.parametrize("name", PIPES)
def test_output_of_programs_is_read_to_the_bit(name: str, tmp_path: Path) -> None:
    if shutil.which(name.split()[0]) is None:
        pytest.skip(f"{name.split()[0]} is not installed")
    data = encoded("WAV")
    source, target = tmp_path / "a.wav", tmp_path / "b"
    source.write_bytes(data)
    subprocess.run(PIPES[name].format(source=source, target=target), shell=True, check=True)
    for copies in (1, 2):
        reading = read(target.read_bytes() * copies)
        assert (reading.error, reading.unused_bytes) == (None, 0)
        np.testing.assert_array_equal(reading.samples, np.concatenate([plain(data)] * copies))
    assert len(reading.samples) == 4 * SAMPLE_RATE


def test_format_without_bits_is_not_guessed() -> None:
    form = struct.pack("<HHIIH", 1, 1, 24_000, 48_000, 2)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", 48_000) + bytes(48_000)
    with pytest.raises(AudioError, match="how many bits") as caught:
        read_audio(b"RIFF" + struct.pack("<I", len(chunks)) + chunks, 24_000)
    assert caught.value.reason == "unreadable"
