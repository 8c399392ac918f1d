"""Metrics are found by name, and every clip has values or reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from codectok.errors import InputError
from codectok.evaluation.metrics import registry
from codectok.evaluation.metrics.base import Metric, Pair, Quantity, Signal, UndefinedMetricError
from codectok.evaluation.metrics.intelligibility import Stoi
from codectok.evaluation.metrics.registry import METRICS, measure_pair, metric_name, metrics, missing_packages
from codectok.evaluation.metrics.words import WordErrors
from tests.helpers.audio import voice

RATE = 24_000
NAMES = [metric_name(metric) for metric in METRICS]
# Values of a silent reconstruction: the worst of scales that have one. Distances to silence are finite.
OF_SILENCE = {"si_sdr": -100, "stoi": 0, "estoi": 0, "pesq": 1.043, "visqol_audio": 1, "visqol_speech": 1, "wer": 1}
DISTANCES = ("mel_l1", "mel", "stft", "voicing")
UNDEFINED_FOR_SILENCE = ("loudness", "f0", "dnsmos", "distillmos", "utmos", "speaker_similarity")
# Signal metrics need nothing that a lower rate lacks, and the first and last hold for short clips.
AT_ANY_RATE = ("mel_l1", "mel", "stft", "si_sdr", "loudness", "f0", "voicing")
OF_50_MS = ("mel_l1", "si_sdr")


def hears_nothing(samples: np.ndarray, sample_rate: int) -> str:
    return ""


def _metric(name: str, folder: Path) -> Metric:
    if name in missing_packages(f"{__name__}:hears_nothing"):
        pytest.skip(f"{name} is not installed")
    weights = folder / "utmos.pt"
    weights.touch()
    found = {metric_name(one): one for one in metrics(weights, f"{__name__}:hears_nothing", [name])}
    return found[name]


def _pair(original: np.ndarray, reconstruction: np.ndarray, sample_rate: int = RATE) -> Pair:
    return Pair(Signal(original, sample_rate), Signal(reconstruction, sample_rate), "some words", "en")


def _undefined_pairs() -> Mapping[str, Pair]:
    clip = voice(1.5, RATE)
    pairs = {
        "silent original": _pair(0 * clip, clip),
        "constant original": _pair(0 * clip + 0.5, clip),
        "both silent": _pair(0 * clip, 0 * clip),
        "empty": _pair(clip[:0], clip[:0]),
        "one sample": _pair(clip[:1], clip[:1]),
        "other length": _pair(clip, clip[:-1]),
        "other rate": Pair(Signal(clip, RATE), Signal(clip, 16_000), "some words", "en"),
    }
    for value in (math.nan, math.inf, -math.inf, 1e30):
        broken = clip.copy()
        broken[700] = value
        pairs |= {f"{value} in reconstruction": _pair(clip, broken), f"{value} in original": _pair(broken, clip)}
    return pairs


@pytest.mark.parametrize("name", NAMES)
def test_unusable_pairs_have_reasons(name: str, tmp_path: Path) -> None:
    metric = _metric(name, tmp_path)
    quantities = {quantity.name for quantity in metric.quantities}
    for case, pair in _undefined_pairs().items():
        values, reasons = measure_pair([metric], pair)
        assert values == dict.fromkeys(quantities), case
        assert reasons.keys() == quantities, case
        assert all(reasons.values()), case


@pytest.mark.parametrize("name", NAMES)
def test_short_clips_have_reasons(name: str, tmp_path: Path) -> None:
    clip = voice(0.05, RATE)
    values, reasons = measure_pair([_metric(name, tmp_path)], _pair(clip, 0.5 * clip))
    if name in OF_50_MS:
        assert values[name] == pytest.approx({"mel_l1": math.log(2), "si_sdr": 100}[name], rel=0.1)
    else:
        assert values[name] is None
        assert "short" in reasons[name] or "fewer" in reasons[name] or "0.4 s" in reasons[name]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in AT_ANY_RATE])
def test_speech_metrics_need_wide_band(name: str, tmp_path: Path) -> None:
    clip = voice(1.5, 8000)
    values, reasons = measure_pair([_metric(name, tmp_path)], _pair(clip, 0.5 * clip, 8000))
    assert values[name] is None
    assert "sample rate" in reasons[name]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ("f0", "voicing") else name for name in NAMES]
)
def test_silent_reconstruction_is_worst_or_undefined(name: str, tmp_path: Path) -> None:
    clip = voice(1.5, RATE)
    values, reasons = measure_pair([_metric(name, tmp_path)], _pair(clip, 0 * clip))
    value = values[name]
    if name in UNDEFINED_FOR_SILENCE:
        assert value is None
        assert "reconstruction" in reasons[name]
    elif name in OF_SILENCE:
        assert value == pytest.approx(OF_SILENCE[name], abs=1e-3)
    else:
        assert name in DISTANCES
        assert value is not None
        assert 0.5 < value < 20


class _Infinite(Metric):
    quantities = (Quantity("first", "lower", "infinite"), Quantity("second", "lower", "finite"))

    def measure(self, pair: Pair) -> Mapping[str, float]:
        return {"first": math.inf, "second": 1.0}


class _Broken(Metric):
    quantities = (Quantity("broken", "lower", "a bug"),)

    def measure(self, pair: Pair) -> Mapping[str, float]:
        raise ZeroDivisionError


class _Undefined(Metric):
    quantities = (Quantity("undefined", "lower", "undefined"),)

    def measure(self, pair: Pair) -> Mapping[str, float]:
        raise UndefinedMetricError("it is Sunday")


def test_infinite_results_are_undefined_and_bugs_are_not() -> None:
    clip = voice(0.1, RATE)
    values, reasons = measure_pair([_Infinite(), _Undefined()], _pair(clip, clip))
    assert values == {"first": None, "second": 1.0, "undefined": None}
    assert reasons == {"first": "the result is not finite", "undefined": "it is Sunday"}
    with pytest.raises(ZeroDivisionError):
        measure_pair([_Broken()], _pair(clip, clip))


def test_names_choose_metrics() -> None:
    assert [metric_name(one) for one in metrics(names=["si_sdr", "loudness_difference", "mel", "mel"])] == [
        "mel", "si_sdr", "loudness",
    ]  # fmt: skip
    with pytest.raises(InputError, match="known are mel_l1, mel, stft"):
        metrics(names=["stft", "visqol"])
    quantities = [quantity.name for metric in METRICS for quantity in metric.quantities]
    assert len(quantities) == len(set(quantities))


def test_utmos_needs_file(tmp_path: Path) -> None:
    assert "utmos" not in [metric_name(one) for one in metrics()]
    with pytest.raises(InputError, match="weights"):
        metrics(names=["utmos"])
    with pytest.raises(InputError, match="exist"):
        metrics(utmos=tmp_path / "missing.pt")
    (tmp_path / "weights.pt").touch()
    assert [metric_name(one) for one in metrics(tmp_path / "weights.pt", names=["si_sdr"])] == ["si_sdr", "utmos"]


def test_metrics_without_package_are_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda module: None)
    assert [metric_name(one) for one in metrics()] == ["mel_l1", "mel", "stft", "si_sdr", "loudness"]
    missing = missing_packages()
    assert missing.keys() == set(NAMES) - {"mel_l1", "mel", "stft", "si_sdr", "loudness", "utmos"}
    assert missing["speaker_similarity"] == "Resemblyzer, webrtcvad, setuptools<82, librosa"
    assert missing["wer"] == "jiwer, pocketsphinx"
    assert missing_packages("module:recognizer")["wer"] == "jiwer"
    with pytest.raises(InputError, match="pip install"):
        metrics(names=["pesq"])


def test_version_of_another_distribution_with_the_module_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    class OfNumpy(Stoi):
        packages: ClassVar[Mapping[str, str]] = {"numpy": "numpy>=1.0", "json": "json"}

    def version(name: str) -> str:
        if name != "numpy-gpu":
            raise PackageNotFoundError(name)
        return "2.0"

    monkeypatch.setattr(registry, "version", version)
    monkeypatch.setattr(registry, "packages_distributions", lambda: {"numpy": ["numpy-gpu"]})
    assert registry.installed_versions(OfNumpy()) == {"numpy-gpu": "2.0"}


def test_recognizer_needs_no_pocketsphinx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda module: None if module == "pocketsphinx" else module)
    found = metrics(recognizer=f"{__name__}:hears_nothing", names=["wer"])
    assert isinstance(found[0], WordErrors)
    assert "wer" not in [metric_name(one) for one in metrics()]
