"""Signal metrics match values worked out by hand or by libraries."""

from __future__ import annotations

import numpy as np
import pytest

from codectok.evaluation.metrics.base import Pair, Signal, UndefinedMetricError
from codectok.evaluation.metrics.loudness import Loudness
from codectok.evaluation.metrics.multi_mel import RESOLUTIONS, MultiMel
from codectok.evaluation.metrics.pitch import F0Error, VoicingError
from codectok.evaluation.metrics.signal import MelL1, SiSdr, StftDistance
from tests.helpers.audio import tone, voice

RATE = 24_000


def _pair(original: np.ndarray, reconstruction: np.ndarray, sample_rate: int = RATE) -> Pair:
    return Pair(
        Signal(original.astype(np.float32), sample_rate), Signal(reconstruction.astype(np.float32), sample_rate)
    )


@pytest.mark.parametrize("metric", [MelL1(), MultiMel(), StftDistance()], ids=lambda metric: metric.quantities[0].name)
def test_distance_of_equal_clips_is_zero_and_grows_with_noise(metric: MelL1) -> None:
    clip = tone(0.5, RATE)
    noise = np.random.default_rng(3).normal(0, 0.01, len(clip))
    name = metric.quantities[0].name
    values = [metric.measure(_pair(clip, clip + gain * noise))[name] for gain in (0, 1, 10)]
    assert values[0] == 0
    assert 0 < values[1] < values[2]


def test_mel_l1_of_gain_is_its_logarithm() -> None:
    noise = np.random.default_rng(0).normal(0, 0.2, RATE)
    assert MelL1().measure(_pair(noise, noise / 2))["mel_l1"] == pytest.approx(np.log(2), rel=1e-3)
    assert MelL1().measure(_pair(noise, noise / 2, 8000))["mel_l1"] == pytest.approx(np.log(2), rel=1e-3)


def test_multi_mel_of_gain_is_sum_of_logarithms() -> None:
    noise = np.random.default_rng(0).normal(0, 0.2, RATE)
    found = MultiMel().measure(_pair(noise, noise / 10, 8000))["mel"]
    # 1 for each resolution, except for bands without a bin.
    assert 0.97 * len(RESOLUTIONS) < found <= 1.0001 * len(RESOLUTIONS)


def test_multi_mel_matches_definition() -> None:
    """The definition with the filters of librosa, in float64."""
    mel_filters = pytest.importorskip("librosa.filters").mel
    first, second = tone(0.3, RATE).astype(np.float64), 0.5 * tone(0.3, RATE, 400, seed=1).astype(np.float64)
    wanted = 0.0
    for size, bands in RESOLUTIONS:
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        filters = mel_filters(sr=RATE, n_fft=size, n_mels=bands, dtype=np.float64)
        logs = []
        for samples in (first, second):
            padded = np.pad(samples, size // 2, mode="reflect")
            frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 4]
            logs.append(np.log10(np.maximum(np.abs(np.fft.rfft(frames * window)) @ filters.T, 1e-5)))
        wanted += np.abs(logs[0] - logs[1]).mean()
    assert MultiMel().measure(_pair(first, second))["mel"] == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("rate", [8000, 24_000, 48_000])
def test_si_sdr_of_noise_is_its_ratio(rate: int) -> None:
    signal, noise = np.random.default_rng(0).normal(0, 0.1, (2, 2 * rate))
    found = SiSdr().measure(_pair(signal, 0.5 * (signal + 10 ** (-15 / 20) * noise), rate))["si_sdr"]
    assert found == pytest.approx(15, abs=0.2)
    assert SiSdr().measure(_pair(signal, 0 * signal, rate))["si_sdr"] == -100


def test_loudness_of_gain_is_its_level() -> None:
    clip = voice(2, RATE)
    found = Loudness().measure(_pair(clip, clip * 10 ** (-3 / 20)))
    assert found["loudness_difference"] == pytest.approx(-3, abs=1e-3)
    assert found["loudness"] == pytest.approx(3, abs=1e-3)
    assert Loudness().measure(_pair(clip, clip)) == {"loudness": 0, "loudness_difference": 0}


def test_loudness_difference_matches_pyloudnorm() -> None:
    pyloudnorm = pytest.importorskip("pyloudnorm")
    meter = pyloudnorm.Meter(RATE)
    original = voice(4, RATE)
    for change in (voice(4, RATE, pitch=200, seed=4), np.diff(original, append=0), np.tanh(5 * original)):
        wanted = meter.integrated_loudness(change.astype(float)) - meter.integrated_loudness(original.astype(float))
        found = Loudness().measure(_pair(original, change))["loudness_difference"]
        assert found == pytest.approx(wanted, abs=0.1)


def _pulses(pitch: float, seconds: float = 1.5) -> np.ndarray:
    phase = np.arange(round(seconds * RATE)) * pitch / RATE
    harmonics = np.arange(1, 20)[:, None]
    pulses: np.ndarray = (np.sin(2 * np.pi * harmonics * phase) / harmonics).sum(0) * 0.1
    return pulses


@pytest.mark.slow  # pyin is compiled for half a minute when it runs for the first time
def test_f0_error_is_interval() -> None:
    pytest.importorskip("librosa")
    low, high = _pulses(200), _pulses(210)
    found = F0Error().measure(_pair(low, high))
    wanted = 1200 * np.log2(210 / 200)  # 84.5 cents, in steps of 10
    assert found["f0"] == pytest.approx(wanted, abs=10)
    assert found["f0_median"] == pytest.approx(wanted, abs=10)
    assert F0Error().measure(_pair(low, low)) == {"f0": 0, "f0_median": 0}


@pytest.mark.slow
def test_voicing_error_is_share_of_frames() -> None:
    pytest.importorskip("librosa")
    clip = _pulses(200)
    half = clip.copy()
    half[len(half) // 2 :] = np.random.default_rng(0).normal(0, 0.1, len(half) - len(half) // 2)
    pair = _pair(clip, half)
    assert VoicingError().measure(pair)["voicing"] == pytest.approx(0.5, abs=0.06)
    assert F0Error().measure(pair)["f0"] < 5
    assert VoicingError().measure(_pair(clip, clip))["voicing"] == 0
    assert VoicingError().measure(_pair(clip, 0 * clip))["voicing"] > 0.9
    noise = np.random.default_rng(1).normal(0, 0.1, len(clip))
    with pytest.raises(UndefinedMetricError, match="voiced"):
        F0Error().measure(_pair(clip, noise * (np.arange(len(clip)) < 100) + 1e-4 * noise))
