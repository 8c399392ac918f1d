"""The bytes of a file decide who decodes it, not its name."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectok import AudioError
from codectok.audio.ffmpeg import decoding as ffmpeg
from codectok.audio.files import read_audio
from codectok.audio.signatures import HEAD_BYTES, is_known_other, signature_of
from codectok.errors import NotAudioError
from tests.helpers.audio import tone

needs_ffmpeg = pytest.mark.skipif(not ffmpeg.is_installed(), reason="ffmpeg is not installed")
RATE = 16_000


def encode(path: Path, *options: str, seconds: float = 2) -> Path:
    """Write a tone with ffmpeg; its name decides only if `options` do not name a format."""
    program = ffmpeg.program()
    assert program is not None
    source = path.with_name("source.wav")
    soundfile.write(source, tone(seconds, RATE), RATE)
    subprocess.run([program, "-v", "error", "-y", "-i", str(source), *options, str(path)], check=True)
    return path


ENCODINGS = {
    "M4A": ("-c:a", "aac", "-f", "ipod"),
    "ALAC in M4A": ("-c:a", "alac", "-f", "ipod"),
    "ALAC in CAF": ("-c:a", "alac", "-f", "caf"),
    "WebM": ("-c:a", "libopus", "-f", "webm"),
    "Opus in MP4": ("-c:a", "libopus", "-f", "mp4"),
    "ADTS": ("-c:a", "aac", "-f", "adts"),
    "G.722 in WAV": ("-c:a", "adpcm_g722", "-f", "wav"),
    "G.726 in WAV": ("-c:a", "g726", "-ar", "8000", "-f", "wav"),
    "WMA in WAV": ("-c:a", "wmav2", "-f", "wav"),
    "WMA": ("-c:a", "wmav2", "-f", "asf"),
    "FLAC in Ogg": ("-c:a", "flac", "-f", "ogg"),
    "WavPack": ("-c:a", "wavpack", "-f", "wv"),
    "TTA": ("-c:a", "tta", "-f", "tta"),
    "AC-3": ("-c:a", "ac3", "-f", "ac3"),
    "transport stream": ("-c:a", "aac", "-f", "mpegts"),
}


@needs_ffmpeg
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_name_does_not_matter(encoding: str, tmp_path: Path) -> None:
    data = encode(tmp_path / "encoded", *ENCODINGS[encoding]).read_bytes()
    expected = read_audio(data, RATE)
    assert len(expected) == pytest.approx(2 * RATE, abs=0.15 * RATE)
    for name in ("a.wav", "b.mp3", "c.dat", "d", "e.txt", "f.raw"):
        (tmp_path / name).write_bytes(data)
        np.testing.assert_array_equal(read_audio(tmp_path / name, RATE), expected)


@needs_ffmpeg
@pytest.mark.parametrize("encoding", ["M4A", "WebM", "WMA", "ADTS", "G.722 in WAV"])
def test_missing_ffmpeg_is_named_with_the_format(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "a.wav", *ENCODINGS[encoding])
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    with pytest.raises(AudioError, match=r"codectok\[ffmpeg\]") as caught:
        read_audio(path, RATE)
    assert caught.value.reason == "unsupported"
    shown = signature_of(path.read_bytes()[:HEAD_BYTES])
    assert shown is not None
    assert shown in str(caught.value)


def others() -> dict[str, bytes]:
    """Contents of files that hold no sound."""
    random = np.random.default_rng(0)
    samples = (9000 * np.sin(np.arange(100_000) / 20)).astype("<i2").tobytes()
    return {
        "text": b"Hello, world.\n" * 500,
        "Latin-1": "café naïve ".encode("latin-1") * 200,
        "UTF-16": ("Hello " * 500).encode("utf-16"),
        "playlist": b"#EXTM3U\n#EXTINF:6,\n/etc/passwd\n",
        "concat": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        "subtitles": b"1\n00:00:01,000 --> 00:00:02,000\nhi\n\n" * 20,
        "session": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=audio 5004 RTP/AVP 0\n",
        "page": b"<!DOCTYPE html><html><body>404</body></html>" * 30,
        "image": b"\x89PNG\r\n\x1a\n" + random.bytes(5000),
        "random": random.bytes(150_000),
        "more random": random.bytes(400_000),
        "samples": samples,
        "zeros": bytes(50_000),
        "one byte": b"a",
    }


@pytest.mark.parametrize("name", ["a.wav", "b.mp3", "c", "d.m4a", "e.au"])
@pytest.mark.parametrize("content", others())
def test_other_files_are_not_audio(content: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(others()[content])
    with pytest.raises(NotAudioError) as caught:
        read_audio(tmp_path / name, RATE)
    assert caught.value.reason == "unreadable"
    for word in ("pipe", "internal error", "does not exist"):
        assert word not in str(caught.value)


@pytest.mark.parametrize("suffix", ["raw", "pcm", "vox", "gsm"])
def test_samples_without_header_are_unsupported(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a.{suffix}").write_bytes(others()["samples"])
    with pytest.raises(AudioError, match="no header") as caught:
        read_audio(tmp_path / f"a.{suffix}", RATE)
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize(
    "audio_format", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64", "RF64", "NIST", "VOC"]
)
def test_signatures_of_libsndfile_formats(audio_format: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a", tone(1, RATE), RATE, format=audio_format)
    head = (tmp_path / "a").read_bytes()[:HEAD_BYTES]
    assert signature_of(head) is not None
    for content in others().values():
        assert signature_of(content[:HEAD_BYTES]) is None


def test_texts_and_archives_are_known_as_others(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        tar.add(tmp_path / "a.zip", "a.zip")
    assert is_known_other((tmp_path / "a.zip").read_bytes())
    assert is_known_other((tmp_path / "a.tgz").read_bytes())
    assert is_known_other("words, wörter, слова, 言葉".encode() * 300)
    assert not is_known_other(struct.pack("<200h", *range(200)))


@needs_ffmpeg
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the packaged ffmpeg is the only one")
def test_packaged_ffmpeg_serves_where_the_path_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imageio_ffmpeg")
    path = encode(tmp_path / "a.m4a")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert len(read_audio(path, RATE)) == pytest.approx(2 * RATE, abs=0.15 * RATE)


@pytest.mark.parametrize("header", [b"\xff\xfb\x90\x64", b"\xff\xf3\x40\xc4"])
def test_samples_without_header_are_not_taken_for_mpeg_audio(header: bytes, tmp_path: Path) -> None:
    """Loud samples may begin like a frame, which is enough for libsndfile."""
    samples = np.clip(np.random.default_rng(1).normal(0, 3000, 100_000), -32_768, 32_767).astype("<i2").tobytes()
    for name in ("a.raw", "a.dat", "a.mp3"):
        (tmp_path / name).write_bytes(header + samples)
        with pytest.raises(AudioError) as caught:
            read_audio(tmp_path / name, 24_000)
        assert caught.value.reason in ("unreadable", "unsupported")
