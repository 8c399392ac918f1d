"""Metrics match their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from codectok.evaluation.metrics import speech_quality
from codectok.evaluation.metrics.signal import SI_SDR_LIMIT, STFT_RESOLUTIONS, si_sdr, stft_distance
from codectok.evaluation.metrics.speech_quality import installed_measures
from tests.helpers.audio import tone


@pytest.mark.parametrize("decibels", [-12.0, 0.0, 20.0])
def test_si_sdr_is_energy_ratio(decibels: float) -> None:
    t = torch.arange(24_000) / 24_000
    signal, other = torch.sin(2 * torch.pi * 100 * t), torch.cos(2 * torch.pi * 100 * t)  # orthogonal
    estimate = signal + 10 ** (-decibels / 20) * other
    assert si_sdr(signal, estimate) == pytest.approx(decibels, abs=1e-3)
    # Gain and constant offset do not count as distortion; more noise lowers the ratio.
    assert si_sdr(signal + 0.3, -0.2 * estimate - 0.7) == pytest.approx(decibels, abs=1e-3)
    noisier, before = si_sdr(signal, estimate + other), si_sdr(signal, estimate)
    assert noisier is not None
    assert before is not None
    assert noisier < before


def test_si_sdr_limits_and_silence() -> None:
    signal = torch.from_numpy(tone(0.5, 24_000))
    silence = torch.zeros(len(signal))
    assert si_sdr(signal, signal) == SI_SDR_LIMIT
    assert si_sdr(signal, silence) == -SI_SDR_LIMIT
    assert si_sdr(silence, signal) is None
    assert si_sdr(silence + 0.5, signal) is None
    assert si_sdr(torch.ones(1), torch.ones(1)) is None


def test_stft_distance_matches_definition() -> None:
    first = tone(0.3, 24_000)
    second = (0.5 * tone(0.3, 24_000, 400, seed=1)).astype(np.float32)
    wanted = []
    for n_fft, win_length, hop_length in STFT_RESOLUTIONS:
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win_length) / win_length)
        window = np.pad(window, (n_fft - win_length) // 2)

        def magnitudes(samples: np.ndarray, window: np.ndarray = window, hop: int = hop_length) -> np.ndarray:
            padded = np.pad(samples.astype(np.float64), len(window) // 2)
            frames = np.lib.stride_tricks.sliding_window_view(padded, len(window))[::hop]
            return np.maximum(np.abs(np.fft.rfft(frames * window)), 1e-5)

        one, other = magnitudes(first), magnitudes(second)
        wanted.append(np.linalg.norm(one - other) / np.linalg.norm(one) + np.abs(np.log(one) - np.log(other)).mean())
    found = stft_distance(torch.from_numpy(first), torch.from_numpy(second))
    assert found == pytest.approx(np.mean(wanted), rel=1e-3)
    assert stft_distance(torch.from_numpy(first), torch.from_numpy(first)) == 0
    for n in (1, 100):
        distance = stft_distance(torch.ones(n), torch.zeros(n))
        assert distance is not None
        assert math.isfinite(distance)


def test_stft_distance_to_silence_is_none() -> None:
    """It would be relative to the floor, thousands of times larger than for any clip."""
    signal = torch.from_numpy(tone(0.3, 24_000))
    for silent in (torch.zeros(len(signal)), torch.full_like(signal, 1e-8)):
        assert stft_distance(silent, signal) is None
        distance = stft_distance(signal, silent)
        assert distance is not None
        assert distance < 20
    assert stft_distance(torch.zeros(1), torch.ones(1)) is None
    click = torch.zeros(len(signal))
    click[5000] = 0.1
    assert stft_distance(click, signal) is not None


def test_stoi_of_short_clip_is_none() -> None:
    pytest.importorskip("pystoi")
    stoi = installed_measures()["stoi"]
    for n in (1, 100, 700, 9000):
        samples = np.random.default_rng(0).standard_normal(n)
        assert stoi(samples, samples, 24_000) is None
    samples = np.random.default_rng(0).standard_normal(24_000)
    assert stoi(samples, samples, 24_000) == pytest.approx(1.0)


def test_stoi_of_noise_counts_and_of_silence_is_none() -> None:
    pytest.importorskip("pystoi")
    stoi = installed_measures()["stoi"]
    speech, *others = np.random.default_rng(0).standard_normal((7, 48_000))
    found = [stoi(speech, estimate, 24_000) for estimate in (*others, 0 * speech)]
    # Negative values are valid results and must not drop the clip.
    values = [value for value in found if value is not None]
    assert len(values) == len(found)
    assert -0.2 < min(values) < 0 < max(values) < 0.2
    for nothing in (0 * speech, 0 * speech + 0.5):
        assert stoi(nothing, speech, 24_000) is None


@pytest.mark.parametrize("missing", ["pystoi", "pesq"])
def test_measure_without_package_is_left_out(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_quality, "find_spec", lambda module: None if module == missing else module)
    assert installed_measures().keys() == {"stoi", "pesq"} - {missing.removeprefix("py")}
