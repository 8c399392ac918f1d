"""Containers that ffmpeg reads: late audio, gaps, several tracks, cut-off and damaged files."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectok import AudioError
from codectok.audio.ffmpeg import decoding as ffmpeg
from codectok.audio.files import stream_audio
from codectok.audio.notes import DecodingNotes
from codectok.errors import NotAudioError
from tests.helpers.audio import tone

pytestmark = pytest.mark.skipif(not ffmpeg.is_installed(), reason="ffmpeg is not installed")
RATE = 16_000
FRAME = 0.13  # seconds; the longest frame of a codec here
FILM = ("-f", "lavfi", "-i", "testsrc=d=6:s=64x64:r=10")


def run(*arguments: str | Path) -> None:
    program = ffmpeg.program()
    assert program is not None
    subprocess.run([program, "-v", "error", "-y", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of a steady tone."""
    path = tmp_path_factory.mktemp("steady") / "steady.wav"
    soundfile.write(path, 0.3 * np.sin(np.arange(4 * 48_000) / 20), 48_000)
    return path


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    soundfile.write(path, tone(10, 48_000), 48_000)
    return path


def decoded(path: Path, notes: DecodingNotes | None = None) -> tuple[np.ndarray, AudioError | None]:
    """The samples before damage, and the error."""
    blocks, error = [np.zeros(0, np.float32)], None

    def until_error() -> Iterator[np.ndarray]:
        nonlocal error
        try:
            yield from stream_audio(path, RATE, notes=notes)
        except AudioError as found:
            error = found

    blocks.extend(until_error())
    return np.concatenate(blocks), error


def loud_spans(samples: np.ndarray) -> list[tuple[float, float]]:
    """Start and end in seconds of each part with sound."""
    steps = np.abs(samples[: len(samples) // 160 * 160]).reshape(-1, 160).max(1) > 0.05
    edges = np.flatnonzero(np.diff(np.concatenate([[False], steps, [False]]).astype(int)))
    return [(start / 100, end / 100) for start, end in edges.reshape(-1, 2) if end - start > 5]


FILMS = {
    "mp4": ("-c:v", "mpeg4", "-c:a", "aac"),
    "mkv": ("-c:v", "mpeg4", "-c:a", "aac"),
    "mov": ("-c:v", "mpeg4", "-c:a", "pcm_s16le"),
    "flv": ("-c:v", "flv1", "-c:a", "aac", "-ar", "44100"),
    "ts": ("-c:v", "mpeg2video", "-r", "25", "-c:a", "aac"),
    "mpg": ("-c:v", "mpeg2video", "-r", "25", "-c:a", "mp2"),
}


@pytest.mark.parametrize("suffix", FILMS)
def test_late_audio_keeps_the_time_of_the_film(suffix: str, steady: Path, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    run(*FILM, "-itsoffset", "1.5", "-i", steady, "-map", "0:v", "-map", "1:a", *FILMS[suffix], path)
    samples, error = decoded(path)
    assert error is None
    assert np.ravel(loud_spans(samples)) == pytest.approx([1.5, 5.5], abs=FRAME)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "flv", "ts"])
def test_gaps_keep_the_time_of_the_film(suffix: str, steady: Path, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    later = "asetpts='PTS+if(gte(T,2),1.5/TB,0)'"
    run(*FILM, "-i", steady, "-map", "0:v", "-map", "1:a", "-af", later, *FILMS[suffix], path)
    samples, error = decoded(path)
    assert error is None
    expected = [(0, 2), (3.5, 5.5)]
    assert np.ravel(loud_spans(samples)) == pytest.approx(np.ravel(expected), abs=FRAME)


def test_other_audio_tracks_are_counted(steady: Path, speech: Path, tmp_path: Path) -> None:
    notes = DecodingNotes()
    run(
        "-i",
        steady,
        "-i",
        speech,
        "-i",
        speech,
        "-map",
        "0",
        "-map",
        "1",
        "-map",
        "2",
        "-c:a",
        "aac",
        tmp_path / "a.mkv",
    )
    samples, _ = decoded(tmp_path / "a.mkv", notes)
    assert len(samples) == pytest.approx(4 * RATE, abs=FRAME * RATE)
    assert notes.other_tracks == 2


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_film_without_sound_is_not_audio(suffix: str, tmp_path: Path) -> None:
    run(*FILM, "-c:v", "mpeg4", tmp_path / f"a.{suffix}")
    _, error = decoded(tmp_path / f"a.{suffix}")
    assert isinstance(error, NotAudioError)
    assert "no audio track" in str(error)


CONTAINERS = {
    "moov first.m4a": ("-c:a", "aac", "-movflags", "+faststart"),
    "aac.mka": ("-c:a", "aac"),
    "opus.webm": ("-c:a", "libopus"),
    "a.wma": ("-c:a", "wmav2"),
    "a.tta": ("-c:a", "tta"),
    "a.wv": ("-c:a", "wavpack"),
    "flac.oga": ("-c:a", "flac", "-f", "ogg"),
    "g722.wav": ("-c:a", "adpcm_g722", "-ar", "16000"),
    "fragments.mp4": ("-c:a", "aac", "-movflags", "+empty_moov", "-frag_duration", "1000000"),
    "mp3.avi": ("-c:a", "libmp3lame"),
}
LONG_FRAMES = {"a.tta": 1.1, "a.wv": 1.1, "flac.oga": 1.1, "g722.wav": 0.6}
WITHOUT_DURATION = {"flac.oga", "fragments.mp4"}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_cut_off_container_is_noticed(name: str, share: float, speech: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    run("-i", speech, *CONTAINERS[name], path)
    whole, error = decoded(path)
    assert error is None
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    samples, error = decoded(path)
    assert error is not None
    assert error.reason == "decode_error"
    seconds = len(samples) / RATE
    # The bit rate varies, so that the place of the cut in the sound is known only roughly.
    assert share * 10 - 1.2 - LONG_FRAMES.get(name, 0) < seconds < share * 10 + 1.2
    tail = 2000  # the resampler ends otherwise
    np.testing.assert_array_equal(samples[:-tail], whole[: len(samples) - tail])
    if name not in WITHOUT_DURATION:
        assert error.seconds == pytest.approx(10 - seconds, abs=0.3)


@pytest.mark.parametrize("name", ["moov first.m4a", "aac.mka", "a.wv"])
def test_damage_within_keeps_the_samples_before(name: str, speech: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    run("-i", speech, *CONTAINERS[name], path)
    whole, _ = decoded(path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = b"\x55" * 3000
    path.write_bytes(data)
    samples, error = decoded(path)
    assert error is not None
    assert error.reason == "decode_error"
    assert len(samples) > 3.5 * RATE
    np.testing.assert_array_equal(samples[:-2000], whole[: len(samples) - 2000])
    assert error.seconds == pytest.approx(10 - len(samples) / RATE, abs=0.3)


def test_wrong_checksum_is_noticed(speech: Path, tmp_path: Path) -> None:
    run("-i", speech, "-c:a", "tta", tmp_path / "a.tta")
    data = bytearray((tmp_path / "a.tta").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = b"\x55" * 3000
    (tmp_path / "a.tta").write_bytes(data)
    _, error = decoded(tmp_path / "a.tta")
    assert error is not None
    assert error.reason == "decode_error"


@pytest.mark.parametrize("name", CONTAINERS)
def test_zeros_behind_a_container_are_harmless(name: str, speech: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    run("-i", speech, *CONTAINERS[name], path)
    whole, _ = decoded(path)
    path.write_bytes(path.read_bytes() + bytes(5000))
    samples, error = decoded(path)
    assert error is None
    np.testing.assert_array_equal(samples, whole)


def test_container_without_its_index_is_rejected(speech: Path, tmp_path: Path) -> None:
    run("-i", speech, tmp_path / "a.m4a")
    data = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "a.m4a").write_bytes(data[: len(data) // 2])
    _, error = decoded(tmp_path / "a.m4a")
    assert error is not None
    assert error.reason == "unreadable"
    assert not isinstance(error, NotAudioError)
    assert "moov" in str(error)
    assert "codectok-" not in str(error)


JOINED = {
    "m4a": ("-c:a", "aac"),
    "mp4": ("-c:a", "aac", "-movflags", "frag_keyframe+empty_moov+default_base_moof", "-frag_duration", "1000000"),
    "webm": ("-c:a", "libopus"),
    "mka": ("-c:a", "aac", "-live", "1"),
    "wma": ("-c:a", "wmav2"),
    "flv": ("-c:a", "aac", "-ar", "44100"),
    "wv": ("-c:a", "wavpack"),
    "tta": ("-c:a", "tta"),
    "ts": ("-c:a", "aac"),
    "oga": ("-c:a", "flac"),
}


@pytest.mark.parametrize("suffix", JOINED)
def test_joined_files_are_decoded_in_turn(suffix: str, steady: Path, tmp_path: Path) -> None:
    one, joined = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    run("-i", steady, *JOINED[suffix], one)
    joined.write_bytes(one.read_bytes() * 3)
    samples, error = decoded(joined)
    assert error is None
    assert len(samples) / RATE == pytest.approx(12, abs=4 * FRAME)
    cut = tmp_path / f"c.{suffix}"
    cut.write_bytes(one.read_bytes() + one.read_bytes()[: one.stat().st_size * 2 // 3])
    samples, error = decoded(cut)
    assert len(samples) / RATE > 4 - FRAME
    assert error is not None


def test_times_of_coded_wav_files_make_no_gaps(steady: Path, tmp_path: Path) -> None:
    run("-i", steady, "-c:a", "wmav2", tmp_path / "a.wav")
    samples, error = decoded(tmp_path / "a.wav")
    assert error is None
    assert len(samples) / RATE == pytest.approx(4, abs=FRAME)


def test_times_by_sizes_in_headers_make_no_gaps(steady: Path, tmp_path: Path) -> None:
    run("-i", steady, "-c:a", "pcm_s16be", tmp_path / "a.caf")
    data = bytearray((tmp_path / "a.caf").read_bytes())
    data[36:40] = (1).to_bytes(4)  # bytes of a packet: half a sample, so that time runs twice as fast
    (tmp_path / "b.caf").write_bytes(data)
    samples, _ = decoded(tmp_path / "b.caf")
    assert len(samples) / RATE == pytest.approx(4, abs=FRAME)


def test_damage_is_told_although_the_stated_duration_is_too_short(steady: Path, tmp_path: Path) -> None:
    run("-i", steady, "-c:a", "alac", tmp_path / "a.m4a")
    data = bytearray((tmp_path / "a.m4a").read_bytes())
    time_scale = data.index(b"mdhd") + 16
    data[time_scale] = 0x40  # by which all times are shorter than a millisecond
    middle = (data.index(b"mdat") + data.index(b"moov")) // 2
    data[middle : middle + 1000] = bytes(range(250)) * 4
    (tmp_path / "b.m4a").write_bytes(data)
    samples, error = decoded(tmp_path / "b.m4a")
    assert len(samples) < 4 * RATE
    assert error is not None


def test_aac_is_read_under_the_name_of_mp3(steady: Path, tmp_path: Path) -> None:
    run("-i", steady, "-c:a", "aac", "-f", "adts", tmp_path / "a.mp3")
    samples, error = decoded(tmp_path / "a.mp3")
    assert error is None
    assert len(samples) / RATE == pytest.approx(4, abs=FRAME)


@pytest.mark.parametrize(("codec", "container"), [("ac3", "spdif"), ("dca", "spdif"), ("dca", "dts")])
def test_coded_audio_in_wav_files_is_not_taken_for_samples(
    codec: str, container: str, steady: Path, tmp_path: Path
) -> None:
    run("-i", steady, "-ac", "2", "-strict", "-2", "-c:a", codec, "-f", container, tmp_path / "coded")
    packets = np.fromfile(tmp_path / "coded", np.int16)
    soundfile.write(tmp_path / "a.wav", packets[: len(packets) // 2 * 2].reshape(-1, 2), 48_000)
    samples, error = decoded(tmp_path / "a.wav")
    assert error is None
    assert len(samples) / RATE == pytest.approx(4, abs=FRAME)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.15, rel=0.1)  # ffmpeg makes stereo 3 dB lower


@pytest.mark.parametrize("order", [(2, 6), (6, 2)])
def test_change_of_the_number_of_channels_in_a_film_moves_nothing(
    order: tuple[int, int], steady: Path, tmp_path: Path
) -> None:
    data = b""
    for number, channels in enumerate(order):
        sound = ("-map", "0:v", "-map", "1:a", "-t", "4", "-c:v", "mpeg2video", "-r", "25", "-c:a", "ac3")
        place = ("-ac", str(channels), "-output_ts_offset", str(4 * number))
        run(*FILM, "-i", steady, *sound, *place, tmp_path / "a.ts")
        data += (tmp_path / "a.ts").read_bytes()
    (tmp_path / "b.ts").write_bytes(data)
    samples, error = decoded(tmp_path / "b.ts")
    assert len(samples) / RATE == pytest.approx(8 if error is None else 4, abs=2 * FRAME)
    assert len(loud_spans(samples)) == 1


def test_unknown_encoding_of_a_wav_file_is_named_as_such(steady: Path, tmp_path: Path) -> None:
    data = bytearray(steady.read_bytes())
    data[20:22] = b"\x00\x00"
    (tmp_path / "a.wav").write_bytes(data)
    _, error = decoded(tmp_path / "a.wav")
    assert error is not None
    assert error.reason == "unsupported"
    assert "encoding" in str(error)
