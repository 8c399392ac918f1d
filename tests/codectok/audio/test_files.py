from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectok import AudioError, InputError
from codectok.audio import files
from codectok.audio.files import audio_info, read_audio, write_audio
from codectok.audio.resample import resample

from ...conftest import tone


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 44_100])
def test_reading_in_blocks_equals_resampling_the_whole(
    rate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stereo = np.stack([tone(2, rate), tone(2, rate, 700)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, rate, subtype="FLOAT")
    monkeypatch.setattr(files, "BLOCK_FRAMES", 1000)
    expected = resample(stereo.mean(axis=1, dtype=np.float32), rate, 24_000)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", 24_000), expected)


@pytest.mark.parametrize(
    ("name", "reason", "message"),
    [
        ("text.wav", "unreadable", "no audio file"),
        ("empty.wav", "empty", "empty file"),
        ("no-samples.wav", "empty", "no samples"),
        ("truncated.flac", "decode_error", "truncated.flac"),
        ("nan.wav", "not_finite", "the first at 1000"),
        ("missing.wav", "unreadable", "No such file"),
    ],
)
def test_unusable_files_say_why(corpus: Path, name: str, reason: str, message: str) -> None:
    with pytest.raises(AudioError, match=message) as caught:
        read_audio(corpus / name, 24_000)
    assert caught.value.reason == reason


@pytest.mark.parametrize("suffix", ["wav", "aiff", "mp3"])
def test_a_file_that_was_cut_off_is_never_taken_for_whole(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(5, 24_000), 24_000)
    assert len(read_audio(path, 24_000)) == 5 * 24_000
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match="cut off"):
        read_audio(path, 24_000)


def test_a_wav_written_to_a_pipe_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1, 24_000), 24_000)
    data = bytearray(path.read_bytes())
    start = data.index(b"data")
    data[4:8] = data[start + 4 : start + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(read_audio(path, 24_000)) == 24_000


def test_bytes_are_read_like_files(corpus: Path) -> None:
    path = corpus / "b.flac"
    np.testing.assert_array_equal(read_audio(path.read_bytes(), 24_000), read_audio(path, 24_000))


def test_written_audio_is_read_back(tmp_path: Path) -> None:
    samples = tone(1, 24_000)
    write_audio(tmp_path / "new" / "a.flac", samples, 24_000)
    np.testing.assert_allclose(read_audio(tmp_path / "new" / "a.flac", 24_000), samples, atol=1 / 32_768)
    assert audio_info(tmp_path / "new" / "a.flac").seconds == 1.0
    with pytest.raises(InputError, match="already exists"):
        write_audio(tmp_path / "new" / "a.flac", samples, 24_000)
    with pytest.raises(InputError, match=r"\.wav or \.flac"):
        write_audio(tmp_path / "a.mp3", samples, 24_000)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["a.flac"]
