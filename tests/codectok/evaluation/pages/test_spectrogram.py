"""Pictures of spectrograms."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest

from codectok.evaluation.pages.spectrogram import HEIGHT, WIDTH, mel_levels, png, spectrograms

RATE = 16_000


def _tone(frequency: float, n_samples: int, sample_rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(n_samples) / sample_rate)).astype(np.float32)


def _pixels(data: bytes) -> np.ndarray:
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(data))
    return np.asarray(image.convert("RGB"), np.float64)


def test_picture_is_a_png_of_rising_lightness() -> None:
    pixels = _pixels(png(np.linspace(0, 1, 256)[np.newaxis].repeat(3, 0)))
    assert pixels.shape == (3, 256, 3)
    lightness = pixels[0] @ [0.30, 0.59, 0.11]
    assert lightness[0] == 0
    assert lightness[-1] == 255
    assert (np.diff(lightness) > -1.5).all()  # up to rounding of three colours


@pytest.mark.parametrize("sample_rate", [8000, 24_000, 44_100])
@pytest.mark.parametrize("frequency", [300.0, 1000.0, 3500.0])
def test_a_tone_lies_at_its_mel_frequency(frequency: float, sample_rate: int) -> None:
    samples = _tone(frequency, sample_rate, sample_rate)
    levels = mel_levels(samples, sample_rate, 50, 80, len(samples))
    row = 79 - int(levels[:, 25].argmax())
    mels = [2595 * np.log10(1 + hertz / 700) for hertz in (frequency, sample_rate / 2)]
    assert row + 1 == pytest.approx(81 * mels[0] / mels[1], abs=1.5)


def test_time_runs_to_the_right() -> None:
    samples = np.concatenate([np.zeros(RATE, np.float32), _tone(1000, RATE)])
    loudest = mel_levels(samples, RATE, 100, 40, len(samples)).max(0)
    assert loudest[:47].max() < -100
    assert loudest[53:].min() > -40
    half = mel_levels(samples[:RATE], RATE, 100, 40, len(samples))
    assert half.max() < -100


def test_pictures_share_the_scale_of_the_original() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    original, same, quiet, loud = map(_pixels, spectrograms([samples, samples, samples * 0.1, samples * 10], RATE))
    assert np.array_equal(original, same)
    assert quiet.mean() < original.mean() < loud.mean()
    assert original.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("n_samples", [0, 1, 799])
def test_short_and_silent_clips_have_pictures(n_samples: int) -> None:
    for clip in (np.zeros(n_samples, np.float32), np.ones(n_samples, np.float32)):
        pictures = spectrograms([clip, np.zeros(5, np.float32)], RATE)
        assert [_pixels(picture).shape for picture in pictures] == [(HEIGHT, WIDTH, 3)] * 2


def test_silence_is_black() -> None:
    silence = np.zeros(RATE, np.float32)
    assert not _pixels(spectrograms([silence], RATE)[0]).any()
    assert not _pixels(spectrograms([_tone(1000, RATE), silence], RATE)[1]).any()


def test_picture_is_small_and_always_the_same() -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, 10 * RATE).astype(np.float32)
    first, second = (spectrograms([samples], RATE)[0] for _ in range(2))
    assert first == second
    assert len(first) < WIDTH * HEIGHT


def test_a_long_clip_takes_the_time_of_a_short_one() -> None:
    samples = np.zeros(20 * 60 * RATE, np.float32)
    started = time.monotonic()
    spectrograms([samples], RATE)
    assert time.monotonic() - started < 5
