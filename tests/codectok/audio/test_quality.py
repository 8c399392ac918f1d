from __future__ import annotations

import numpy as np
import pytest

from codectok import AudioError, InputError
from codectok.audio.analysis.quality import Quality, QualityLimits
from codectok.audio.analysis.spectrum import Spectrum
from codectok.audio.resample import resample
from tests.helpers.audio import tone


def integrated_loudness(samples: np.ndarray, sample_rate: int) -> float | None:
    return Spectrum(samples, sample_rate).integrated_loudness()


def sine(frequency: float, seconds: float, sample_rate: int) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * sample_rate)) / sample_rate).astype(np.float32)


@pytest.mark.parametrize("sample_rate", [16_000, 24_000, 44_100, 48_000])
def test_loudness_of_full_scale_sine(sample_rate: int) -> None:
    # ITU-R BS.1770-4: a 997 Hz sine at 0 dBFS in one channel measures -3.01 LUFS.
    assert integrated_loudness(sine(997, 5, sample_rate), sample_rate) == pytest.approx(-3.0, abs=0.051)


def test_loudness_ignores_pauses() -> None:
    loud = 0.1 * sine(997, 5, 24_000)
    with_pause = np.concatenate([loud, np.zeros(24_000 * 10, np.float32)])
    assert integrated_loudness(with_pause, 24_000) == pytest.approx(integrated_loudness(loud, 24_000), abs=0.2)
    assert integrated_loudness(np.zeros(48_000, np.float32), 24_000) is None
    assert integrated_loudness(loud[:1000], 24_000) is None


@pytest.mark.parametrize(("rate", "expected"), [(8000, 4000), (16_000, 8000), (24_000, 12_000)])
def test_bandwidth_of_upsampled_noise(rate: int, expected: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 6 * rate).astype(np.float32)
    found = Spectrum(resample(noise, rate, 24_000), 24_000).bandwidth()
    assert found == pytest.approx(expected, rel=0.06)


def test_bandwidth_of_silence_and_loudness_of_short_clip() -> None:
    assert Spectrum(np.zeros(30_000, np.float32), 24_000).bandwidth() == 0
    assert Quality.of(np.full(1, 0.5, np.float32), 24_000).loudness is None


@pytest.mark.parametrize(
    ("samples", "limits", "reason"),
    [
        (np.zeros(72_000, np.float32), {"min_loudness": -60}, "silent"),
        (0.003 * tone(3, 24_000), {"min_loudness": -60}, "filtered"),
        (tone(3, 24_000), {"max_loudness": -40}, "filtered"),
        (np.clip(5 * tone(3, 24_000), -1, 1), {"max_clipping": 0.1}, "clipped"),
        (sine(997, 3, 24_000), {"min_bandwidth": 4000}, "filtered"),
    ],
)
def test_exceeded_limit_is_rejected_with_reason(samples: np.ndarray, limits: dict[str, float], reason: str) -> None:
    Quality.within(QualityLimits(), samples, 24_000)
    with pytest.raises(AudioError) as caught:
        Quality.within(QualityLimits(**limits), samples, 24_000)
    assert caught.value.reason == reason


def test_quality_limits_must_be_finite() -> None:
    with pytest.raises(InputError, match="min-loudness"):
        QualityLimits(min_loudness=float("nan"))


def test_dnsmos_of_noise_is_low() -> None:
    pytest.importorskip("speechmos")
    pytest.importorskip("librosa")
    noise = np.random.default_rng(0).normal(0, 0.1, 72_000).astype(np.float32)
    score = Quality.within(QualityLimits(min_dnsmos=1.0), noise, 24_000).dnsmos
    assert score is not None
    assert 1 <= score < 2.5
    with pytest.raises(AudioError, match="DNSMOS"):
        Quality.within(QualityLimits(min_dnsmos=3.0), noise, 24_000)
