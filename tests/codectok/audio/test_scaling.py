"""Floating-point files at the scale of integers, and samples slightly beyond full scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectok import AudioError, Codec, SoundOptions, read_audio
from codectok.audio.files import stream_audio
from codectok.audio.notes import DecodingNotes
from tests.helpers.audio import tone

RATE = 24_000
AUTO = SoundOptions(scale="auto")


@pytest.mark.parametrize("form", ["WAV", "AIFF", "W64", "CAF", "AU"])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_scaled_integers_are_refused_or_divided(form: str, subtype: str, tmp_path: Path) -> None:
    samples = np.concatenate([np.zeros(2 * RATE, np.float32), tone(3, RATE)])  # far from zero only in the end
    soundfile.write(tmp_path / "a.bin", samples * 32_767, RATE, subtype, format=form)
    with pytest.raises(AudioError, match="--scale auto") as caught:
        next(stream_audio(tmp_path / "a.bin", RATE))
    assert (caught.value.reason, caught.value.seconds) == ("clipped", 5.0)
    np.testing.assert_allclose(read_audio(tmp_path / "a.bin", RATE, sound=AUTO), samples, atol=1 / 32_768)


@pytest.mark.parametrize(("scale", "found"), [(2**15, 2**15), (2**23 - 1, 2**23), (2**31, 2**31)])
def test_scale_is_that_of_integers_with_16_24_or_32_bits(scale: int, found: int, tmp_path: Path) -> None:
    samples = tone(1, RATE)
    soundfile.write(tmp_path / "a.wav", samples * np.float32(scale), RATE, "FLOAT")
    expected = samples * np.float32(scale) / np.float32(found)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", RATE, sound=AUTO), expected)


def test_slightly_loud_samples_are_kept_and_counted(tmp_path: Path) -> None:
    samples = tone(1, RATE) * np.float32(4)
    soundfile.write(tmp_path / "a.wav", samples, RATE, "FLOAT")
    for sound in (SoundOptions(), AUTO):
        notes = DecodingNotes()
        found = np.concatenate(list(stream_audio(tmp_path / "a.wav", RATE, notes=notes, sound=sound)))
        np.testing.assert_array_equal(found, samples)
        assert notes.loud_samples == np.count_nonzero(np.abs(samples) > 1) > 0


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32"])
def test_integer_files_are_decoded_once(subtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1, RATE), RATE, subtype)
    opened = []
    open_file = soundfile.SoundFile.__init__

    def counting(self: soundfile.SoundFile, *given: object, **named: object) -> None:
        opened.append(given)
        open_file(self, *given, **named)

    monkeypatch.setattr(soundfile.SoundFile, "__init__", counting)
    read_audio(tmp_path / "a.wav", RATE, sound=AUTO)
    assert len(opened) == 1


def test_codec_refuses_scaled_integers() -> None:
    codec = Codec.from_config("nano")
    with pytest.raises(AudioError, match="32,768") as caught:
        codec.encode(tone(1, RATE) * np.float32(32_767), RATE)
    assert caught.value.reason == "clipped"
    assert len(codec.encode(tone(1, RATE) * np.float32(4), RATE))


@pytest.mark.parametrize("place", [0, 1, 40_000, 65_535, 65_536, 100_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_before_one_that_is_not_finite_are_kept(place: int, channels: int, tmp_path: Path) -> None:
    samples = np.full((120_000, channels), 0.25, np.float32)
    samples[place, -1] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 24_000, subtype="FLOAT")
    kept = 0
    with pytest.raises(AudioError, match="not finite") as caught:
        for block in stream_audio(tmp_path / "a.wav", 24_000):
            kept += len(block)
    assert kept == place
    assert caught.value.reason == "not_finite"
