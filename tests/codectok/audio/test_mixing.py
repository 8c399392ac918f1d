"""Channels become one without losing sound: surround by its layout, channels that cancel, single channels."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectok import AudioError, InputError, SoundOptions, read_audio
from codectok.audio import decoding
from codectok.audio.channels.positions import (
    DEFAULT_ORDERS,
    VORBIS_ORDERS,
    mixing_weights,
    positions_in_log,
    positions_of_mask,
)
from codectok.audio.files import stream_audio
from codectok.audio.notes import DecodingNotes
from codectok.audio.resample import resample
from tests.helpers.audio import tone

RATE = 24_000


def in_channel(samples: np.ndarray, channel: int, channels: int) -> np.ndarray:
    """All `channels` silent but one."""
    block = np.zeros((len(samples), channels), np.float32)
    block[:, channel] = samples
    return block


def level(samples: np.ndarray) -> float:
    """Level in dB."""
    return 10 * float(np.log10(np.mean(np.square(samples, dtype=np.float64))))


@pytest.mark.parametrize(
    ("form", "subtype", "orders"),
    [
        ("WAV", "PCM_16", DEFAULT_ORDERS),
        ("WAVEX", "FLOAT", DEFAULT_ORDERS),
        ("W64", "PCM_24", DEFAULT_ORDERS),
        ("AIFF", "PCM_16", DEFAULT_ORDERS),
        ("CAF", "PCM_16", DEFAULT_ORDERS),
        ("FLAC", "PCM_16", DEFAULT_ORDERS),
        ("OGG", "VORBIS", VORBIS_ORDERS),
        ("OGG", "OPUS", VORBIS_ORDERS),
    ],
)
@pytest.mark.parametrize("channels", [3, 5, 6, 8])
def test_centre_of_surround_keeps_its_level(
    form: str, subtype: str, orders: dict[int, tuple[str, ...]], channels: int, tmp_path: Path
) -> None:
    speech = tone(2, RATE)
    file = tmp_path / "a.bin"
    soundfile.write(file, in_channel(speech, orders[channels].index("FC"), channels), RATE, subtype, format=form)
    assert abs(level(read_audio(file, RATE)) - level(speech)) < 0.5


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize(("suffix", "channels"), [("m4a", 6), ("m4a", 4), ("mka", 4), ("mka", 8)])
def test_centre_of_surround_read_by_ffmpeg_keeps_its_level(suffix: str, channels: int, tmp_path: Path) -> None:
    speech = tone(2, RATE)
    soundfile.write(tmp_path / "a.wav", in_channel(speech, 2, channels), RATE)
    layout = {4: "4.0", 6: "5.1", 8: "7.1"}[channels]  # 4.0 has a centre, but the default layout of 4 has none
    form = f"pan={layout}|" + "|".join(f"c{i}=c{i}" for i in range(channels))
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "a.wav"), "-af", form]
    command += ["-c:a", "aac" if suffix == "m4a" else "pcm_s16le", str(tmp_path / f"b.{suffix}")]
    subprocess.run(command, check=True)
    assert abs(level(read_audio(tmp_path / f"b.{suffix}", RATE)) - level(speech)) < 0.5


def test_positions_come_from_mask_log_or_count() -> None:
    assert positions_of_mask(4, 0x107) == ("FL", "FR", "FC", "BC")
    assert positions_of_mask(4, 0x3F) == DEFAULT_ORDERS[4]
    assert positions_in_log(3, "PCM_16", "  Channel Mask  : 0xB (L, R, LFE)\n") == (
        "FL",
        "FR",
        "LFE",
    )
    log = "chan : 12\n  Tag    : 730004\n  Layout : MPEG 4.0 A (L, R, C, Cs)\n"
    assert positions_in_log(4, "PCM_16", log) == ("FL", "FR", "FC", "BC")
    assert positions_in_log(4, "PCM_16", "  Layout : Ambisonic B (W, X, Y, Z)\n") is None
    assert positions_in_log(6, "OPUS", "  Channel Mapping  : 255 (no interpretation)\n") is None
    assert positions_in_log(9, "PCM_16", "") is None


def test_weights_are_of_bs_775_and_keep_a_phantom_centre() -> None:
    assert mixing_weights(6, DEFAULT_ORDERS[6]) == pytest.approx([0.7071, 0.7071, 1, 0, 0.5, 0.5], abs=1e-4)
    assert mixing_weights(4, DEFAULT_ORDERS[4]) == pytest.approx([0.5, 0.5, 0.3536, 0.3536], abs=1e-4)
    assert mixing_weights(2, ("FL", "FR")) is None
    assert mixing_weights(9, None) is None


def test_many_channels_without_positions_are_averaged(tmp_path: Path) -> None:
    array = np.stack([tone(1, RATE, 200 + 30 * i, seed=i) for i in range(12)], axis=1)
    soundfile.write(tmp_path / "array.wav", array, RATE, "FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "array.wav", RATE), array.mean(axis=1, dtype=np.float32))


def test_loud_surround_is_turned_down_not_clipped(tmp_path: Path) -> None:
    speech, music = 0.5 * tone(3, RATE) / 0.4, np.sign(tone(3, RATE, 90)) * 0.95
    six = in_channel(speech, 2, 6)
    six[RATE : 2 * RATE, [0, 1, 4, 5]] = music[RATE : 2 * RATE, None]
    soundfile.write(tmp_path / "a.wav", six, RATE, "FLOAT")
    mixed = read_audio(tmp_path / "a.wav", RATE)
    assert np.abs(mixed).max() <= 1.00001
    np.testing.assert_array_equal(mixed[: RATE // 2], six[: RATE // 2, 2])  # far from the loud part nothing changes
    assert np.abs(np.diff(mixed[RATE // 2 : RATE])).max() < 0.2  # the gain has no steps


def opposite(start: float, end: float, seconds: float = 6.0, gain: float = 1.0) -> np.ndarray:
    """Stereo whose channels are opposite from `start` to `end` seconds, and equal elsewhere."""
    left = 0.3 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)
    right = left.copy()
    right[round(start * RATE) : round(end * RATE)] *= -gain
    return np.stack([left, right], axis=1)


@pytest.mark.parametrize("gain", [1.0, 0.9, 1.1])
@pytest.mark.parametrize("form", ["WAV", "FLAC", "MP3", "OGG"])
def test_opposite_channels_give_the_first_one(form: str, gain: float, tmp_path: Path) -> None:
    stereo = opposite(0, 6, gain=gain)
    soundfile.write(tmp_path / "a.bin", stereo, RATE, format=form)
    notes = DecodingNotes()
    found = np.concatenate(list(stream_audio(tmp_path / "a.bin", RATE, notes=notes)))
    assert abs(level(found) - level(stereo[:, 0])) < 0.5
    first = read_audio(tmp_path / "a.bin", RATE, sound=SoundOptions(0))
    np.testing.assert_array_equal(found, first)
    ((start, end),) = notes.cancelled
    assert start == 0 and end == pytest.approx(len(found) / RATE)


def test_opposite_channels_with_an_offset_give_the_first_one(tmp_path: Path) -> None:
    stereo = opposite(0, 3, seconds=3.0) + np.float32(0.2)
    soundfile.write(tmp_path / "a.wav", stereo, RATE, subtype="PCM_24")
    first = read_audio(tmp_path / "a.wav", RATE, sound=SoundOptions(0))
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", RATE), first)


def test_a_part_with_opposite_channels_is_not_lost(tmp_path: Path) -> None:
    stereo = opposite(2, 4)
    soundfile.write(tmp_path / "a.wav", stereo, RATE, "FLOAT")
    notes = DecodingNotes()
    found = np.concatenate(list(stream_audio(tmp_path / "a.wav", RATE, notes=notes)))
    np.testing.assert_allclose(found[2 * RATE + 240 : 4 * RATE], stereo[2 * RATE + 240 : 4 * RATE, 0])
    np.testing.assert_allclose(found[4 * RATE + 240 :], stereo[4 * RATE + 240 :, 0])
    assert notes.cancelled == [(2.0, 4.0)]
    assert np.abs(np.diff(found)).max() < 0.02  # no clicks
    with pytest.raises(AudioError, match="cancel") as caught:
        read_audio(tmp_path / "a.wav", RATE, sound=SoundOptions(cancelled="reject"))
    assert (caught.value.reason, caught.value.seconds) == ("cancelled", 6.0)


@pytest.mark.parametrize("frames", [64, 1000, 99_999])
def test_mixture_does_not_depend_on_blocks(frames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    six = np.zeros((6 * 16_001, 6), np.float32)
    six[:, :2] = 0.9 * np.sign(tone(6, 16_001))[:, None]
    six[:, 2] = tone(6, 16_001, seed=1)
    six[30_000:60_000, 1] *= -1
    six[30_000:60_000, 2] = 0
    soundfile.write(tmp_path / "a.wav", six, 16_001, "FLOAT")
    whole, chunked = DecodingNotes(), DecodingNotes()
    expected = np.concatenate(list(stream_audio(tmp_path / "a.wav", RATE, notes=whole)))
    monkeypatch.setattr(decoding, "BLOCK_FRAMES", frames)
    found = np.concatenate(list(stream_audio(tmp_path / "a.wav", RATE, notes=chunked)))
    np.testing.assert_array_equal(found, expected)
    assert whole == chunked and whole.cancelled


@pytest.mark.parametrize("seed", range(4))
def test_plain_stereo_is_the_mean(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    stereo = np.stack([tone(3, 44_100, seed=seed), tone(3, 44_100, 300 + 100 * seed, seed=9)], axis=1)
    stereo *= rng.uniform(0, 1, 2).astype(np.float32)  # one side may be much louder
    stereo[:100] = -0.0
    soundfile.write(tmp_path / "a.wav", stereo, 44_100, "FLOAT")
    expected = stereo.mean(axis=1, dtype=np.float32)
    assert read_audio(tmp_path / "a.wav", 44_100).tobytes() == expected.tobytes()
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", RATE), resample(expected, 44_100, RATE))


def test_one_channel_equals_a_file_of_it_alone(tmp_path: Path) -> None:
    several = np.stack([tone(2, 44_100, 200 + 50 * i, seed=i) for i in range(3)], axis=1)
    soundfile.write(tmp_path / "a.wav", several, 44_100, "PCM_16")
    alone = []
    for channel in range(3):
        soundfile.write(tmp_path / "one.wav", several[:, channel], 44_100, "PCM_16")
        alone.append(read_audio(tmp_path / "one.wav", RATE))
        np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", RATE, sound=SoundOptions(channel)), alone[-1])
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", RATE, sound=SoundOptions("each")), np.stack(alone))
    with pytest.raises(AudioError, match="3 channels") as caught:
        read_audio(tmp_path / "a.wav", RATE, sound=SoundOptions(3))
    assert caught.value.reason == "unsupported"


def test_more_channels_than_can_be_mixed_are_refused_with_advice(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((100, 65), np.float32), RATE)
    with pytest.raises(AudioError, match="--channel"):
        read_audio(tmp_path / "a.wav", RATE)
    assert len(read_audio(tmp_path / "a.wav", RATE, sound=SoundOptions(64))) == 100


@pytest.mark.parametrize("channel", ["left", "-1", "1.5", ""])
def test_impossible_channel_is_refused(channel: str) -> None:
    with pytest.raises(InputError, match="channel"):
        SoundOptions.parse(channel, "first", "refuse")


def test_sound_in_the_low_frequency_channel_alone_is_not_lost(tmp_path: Path) -> None:
    speech = tone(4, RATE)
    place = DEFAULT_ORDERS[6].index("LFE")
    block = in_channel(speech, place, 6)
    block[: RATE * 2] = in_channel(speech[: RATE * 2], DEFAULT_ORDERS[6].index("FC"), 6)
    soundfile.write(tmp_path / "a.wav", block, RATE)
    notes = DecodingNotes()
    mono = np.concatenate(list(stream_audio(tmp_path / "a.wav", RATE, notes=notes)))
    assert level(mono[: RATE * 2]) == pytest.approx(level(speech[: RATE * 2]), abs=0.5)
    assert level(mono[RATE * 2 :]) == pytest.approx(level(speech[RATE * 2 :]), abs=0.5)
    assert notes.cancelled == [(2.0, 4.0)]
