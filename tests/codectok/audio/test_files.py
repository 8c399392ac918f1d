from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectok import AudioError, InputError
from codectok.audio import decoding, files
from codectok.audio.ffmpeg import decoding as ffmpeg
from codectok.audio.files import audio_info, read_audio, stream_audio, write_audio
from codectok.audio.resample import resample
from tests.helpers.audio import tone


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 44_100])
def test_read_audio_in_blocks_equals_whole(rate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stereo = np.stack([tone(2, rate), tone(2, rate, 700)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, rate, subtype="FLOAT")
    monkeypatch.setattr(decoding, "BLOCK_FRAMES", 1000)
    expected = resample(stereo.mean(axis=1, dtype=np.float32), rate, 24_000)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", 24_000), expected)


@pytest.mark.parametrize(
    ("name", "reason", "message"),
    [
        ("text.wav", "unreadable", "audio file"),
        ("empty.wav", "empty", "empty file"),
        ("no-samples.wav", "empty", "no samples"),
        ("truncated.flac", "decode_error", "truncated.flac"),
        ("nan.wav", "not_finite", "the first at 0"),
        ("missing.wav", "unreadable", "No such file"),
    ],
)
def test_unusable_file_is_rejected_with_reason(corpus: Path, name: str, reason: str, message: str) -> None:
    with pytest.raises(AudioError, match=message) as caught:
        read_audio(corpus / name, 24_000)
    assert caught.value.reason == reason


@pytest.mark.parametrize("suffix", ["wav", "aiff", "mp3"])
def test_cut_off_file_is_rejected(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(5, 24_000), 24_000)
    assert len(read_audio(path, 24_000)) == 5 * 24_000
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match="cut off"):
        read_audio(path, 24_000)


def test_wav_header_with_unknown_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1, 24_000), 24_000)
    data = bytearray(path.read_bytes())
    start = data.index(b"data")
    data[4:8] = data[start + 4 : start + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(read_audio(path, 24_000)) == 24_000


def test_read_audio_of_bytes_equals_file(corpus: Path) -> None:
    path = corpus / "b.flac"
    np.testing.assert_array_equal(read_audio(path.read_bytes(), 24_000), read_audio(path, 24_000))


def test_write_audio_round_trip_and_refusals(tmp_path: Path) -> None:
    samples = tone(1, 24_000)
    assert write_audio(tmp_path / "new" / "a.flac", [samples[:100], samples[100:]], 24_000) == len(samples)
    np.testing.assert_allclose(read_audio(tmp_path / "new" / "a.flac", 24_000), samples, atol=1 / 32_768)
    assert audio_info(tmp_path / "new" / "a.flac").seconds == 1.0
    with pytest.raises(InputError, match="already exists"):
        write_audio(tmp_path / "new" / "a.flac", [samples], 24_000)
    with pytest.raises(InputError, match=r"\.wav or \.flac"):
        write_audio(tmp_path / "a.mp3", [samples], 24_000)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["a.flac"]


@pytest.mark.parametrize(("suffix", "seconds", "container"), [
    ("wav", 1.0, "RF64"), ("wav", 0.5, "WAV"), ("wav", None, "WAV"), ("flac", 1.0, "FLAC"),
])  # fmt: skip
def test_wav_above_limit_becomes_rf64(
    suffix: str, seconds: float | None, container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGEST_WAV", 20_000)
    path, samples = tmp_path / f"a.{suffix}", tone(1, 24_000)[: 24_000 if container != "WAV" else 12_000]
    assert write_audio(path, [samples[:100], samples[100:]], 24_000, seconds) == len(samples)
    info = soundfile.info(path)
    assert (info.format, info.frames) == (container, len(samples))
    assert audio_info(path).n_samples == len(samples)
    np.testing.assert_allclose(read_audio(path, 24_000), samples, atol=1 / 32_768)


def test_wav_of_unknown_duration_above_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST_WAV", 20_000)
    with pytest.raises(InputError, match="too long"):
        write_audio(tmp_path / "a.wav", [tone(1, 24_000)], 24_000)
    assert not list(tmp_path.iterdir())


def test_rf64_holds_more_than_4_gb(tmp_path: Path) -> None:
    path, count = tmp_path / "a.wav", (1 << 31) + 1000
    samples = tone(1, 24_000)[:1000]
    write_audio(path, [samples], 24_000, count / 24_000)
    header = bytearray(path.read_bytes()[:-2000])
    start = header.index(b"ds64") + 8
    header[start : start + 24] = struct.pack("<QQQ", len(header) + 2 * count - 8, 2 * count, count)
    with path.open("r+b") as file:  # silence behind the samples, without blocks on the disk
        file.write(header)
        file.truncate(len(header) + 2 * count)
    assert soundfile.info(path).frames == count


def without_length_header(data: bytes) -> bytes:
    """Remove the first frame of an MP3, which holds its length and no sound."""
    assert b"Info" in data[:200] or b"Xing" in data[:200]
    return data[data.index(data[:2], 4) :]


def test_mp3_without_length_is_read_to_end(tmp_path: Path) -> None:
    # Silence first: with a variable bit rate its frames are small, and a length guessed from them is wrong.
    samples = np.concatenate([np.zeros(24_000 * 5, np.float32), tone(15, 24_000)])
    soundfile.write(tmp_path / "a.mp3", samples, 24_000, bitrate_mode="VARIABLE", compression_level=0.5)
    data = without_length_header((tmp_path / "a.mp3").read_bytes())
    (tmp_path / "b.mp3").write_bytes(data)
    (tmp_path / "tagged.mp3").write_bytes(b"ID3\x04\x00\x00\x00\x00\x07\x68" + bytes(1000) + data)
    for source in (tmp_path / "b.mp3", data, tmp_path / "tagged.mp3"):
        assert len(read_audio(source, 24_000)) == pytest.approx(len(samples), abs=3000)


def test_format_without_decoder_is_unsupported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.m4a").write_bytes(b"\x00\x00\x00\x20ftypM4A " + bytes(1000))
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    for name in ("a.m4a", "a.raw"):
        with pytest.raises(AudioError) as caught:
            read_audio(tmp_path / name, 24_000)
        assert caught.value.reason == "unsupported"
    with pytest.raises(AudioError, match="install ffmpeg"):
        read_audio(tmp_path / "a.m4a", 24_000)


@pytest.fixture
def m4a(tmp_path: Path) -> Path:
    """A stereo file that only ffmpeg reads."""
    if not ffmpeg.is_installed():
        pytest.skip("ffmpeg is not installed")
    stereo = np.stack([tone(3, 44_100), tone(3, 44_100, 500)], axis=1)
    soundfile.write(tmp_path / "source.wav", stereo, 44_100)
    path = tmp_path / "odd: name.m4a"
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "source.wav"), "-c:a", "aac", f"file:{path}"]
    subprocess.run(command, check=True)
    return path


def test_ffmpeg_decodes_m4a(m4a: Path) -> None:
    samples = read_audio(m4a, 44_100)
    np.testing.assert_array_equal(read_audio(m4a.read_bytes(), 44_100, "x.m4a"), samples)
    expected = read_audio(m4a.parent / "source.wav", 44_100)
    assert len(samples) == pytest.approx(len(expected), abs=3000)
    part = slice(44_100, 88_200)
    assert np.corrcoef(samples[part], expected[part])[0, 1] > 0.95
    info = audio_info(m4a)
    assert (info.sample_rate, info.channels, info.n_samples) == (44_100, 2, len(samples))


def test_damaged_m4a_is_rejected(m4a: Path) -> None:
    whole = m4a.read_bytes()
    for data in (b"text" * 100, whole[:100], b""):
        m4a.write_bytes(data)
        with pytest.raises(AudioError) as caught:
            read_audio(m4a, 24_000)
        assert caught.value.reason in ("unreadable", "empty")


def test_closed_stream_leaves_no_ffmpeg_process(m4a: Path) -> None:
    blocks = stream_audio(m4a, 24_000)
    next(blocks)
    blocks.close()
    running = subprocess.run(["ps", "-ef"], capture_output=True, text=True, check=True).stdout
    assert m4a.name not in running


def test_impossible_sample_rate_is_rejected(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(10, np.float32), 1)
    with pytest.raises(AudioError, match="1 Hz"):
        read_audio(tmp_path / "a.wav", 24_000)


def test_samples_near_the_largest_float_are_rejected(tmp_path: Path) -> None:
    samples = np.where(np.arange(44_100) // 20 % 2, 3.3e38, -3.3e38).astype(np.float32)
    soundfile.write(tmp_path / "loud.wav", samples, 44_100, subtype="FLOAT")
    with pytest.raises(AudioError, match="far beyond full scale") as caught:
        read_audio(tmp_path / "loud.wav", 24_000)
    assert caught.value.reason == "clipped"
