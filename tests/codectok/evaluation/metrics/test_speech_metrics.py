"""Speech metrics return the values of the packages that define them, and decide the cases that these leave open."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from codectok.errors import CheckpointError
from codectok.evaluation.metrics.base import Pair, Signal
from codectok.evaluation.metrics.intelligibility import ExtendedStoi, Stoi
from codectok.evaluation.metrics.opinion_scores import DistillMos, Dnsmos, Utmos
from codectok.evaluation.metrics.speaker import SpeakerSimilarity
from codectok.evaluation.metrics.visqol_scores import VisqolAudio, VisqolSpeech
from codectok.evaluation.metrics.wide_band_pesq import WORST, Pesq
from tests.helpers.audio import voice

# Tests of packages with models are slow: loading takes seconds, and compiling ViSQOL ten at the first time.
RATE = 16_000
scripted = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@functools.cache
def _clips(seconds: float = 3) -> tuple[np.ndarray, np.ndarray]:
    """A voice and a noisy copy."""
    clip = voice(seconds, RATE)
    return clip, (clip + np.random.default_rng(1).normal(0, 0.01, len(clip))).astype(np.float32)


def _pair(*clips: np.ndarray, sample_rate: int = RATE) -> Pair:
    original, reconstruction = (Signal(samples, sample_rate) for samples in clips)
    return Pair(original, reconstruction)


def test_stoi_is_that_of_pystoi() -> None:
    package = pytest.importorskip("pystoi")
    pair = _pair(*_clips())
    assert Stoi().measure(pair)["stoi"] == package.stoi(*_clips(), RATE)
    assert ExtendedStoi().measure(pair)["estoi"] == pytest.approx(package.stoi(*_clips(), RATE, extended=True))
    clip, _ = _clips()
    assert Stoi().measure(_pair(clip, clip))["stoi"] == pytest.approx(1)
    assert ExtendedStoi().measure(_pair(clip, clip))["estoi"] == pytest.approx(1)


def test_extended_stoi_leaves_random_numbers_alone() -> None:
    """pystoi draws from the global generator."""
    pytest.importorskip("pystoi")
    pair = _pair(*_clips())
    np.random.seed(7)
    wanted = np.random.random(3)
    np.random.seed(7)
    first = ExtendedStoi().measure(pair)
    assert np.array_equal(np.random.random(3), wanted)
    assert ExtendedStoi().measure(pair) == first


def test_pesq_is_that_of_package() -> None:
    package = pytest.importorskip("pesq")
    pair = _pair(*_clips())
    assert Pesq().measure(pair)["pesq"] == package.pesq(RATE, *_clips(), mode="wb")
    clip, _ = _clips()
    assert Pesq().measure(_pair(clip, clip))["pesq"] == pytest.approx(4.644, abs=1e-3)
    assert Pesq().measure(_pair(clip, 0 * clip))["pesq"] == WORST == pytest.approx(1.043, abs=1e-3)


def test_pesq_of_many_utterances_is_mean_of_parts() -> None:
    """The package writes beyond its arrays, and kills the process, if a clip holds more than 50."""
    pytest.importorskip("pesq")
    burst = np.concatenate([_clips()[0][2000:6000], np.zeros(4000, np.float32)])
    clip = np.tile(burst, 78)  # 39 s
    noisy = clip + np.random.default_rng(1).normal(0, 0.01, len(clip)).astype(np.float32)
    halves = [Pesq().measure(_pair(*pair))["pesq"] for pair in zip(np.split(clip, 2), np.split(noisy, 2), strict=True)]
    assert Pesq().measure(_pair(clip, noisy))["pesq"] == pytest.approx(np.mean(halves))
    # Parts without speech have no value, and silent parts of the reconstruction the worst.
    pause = np.concatenate([clip[: 20 * RATE], np.zeros(20 * RATE, np.float32)])
    dropped = np.concatenate([clip[: 20 * RATE], 0 * clip[: 20 * RATE]])
    assert Pesq().measure(_pair(pause, pause))["pesq"] == pytest.approx(4.644, abs=1e-3)
    double = np.concatenate([clip[: 20 * RATE]] * 2)
    assert Pesq().measure(_pair(double, dropped))["pesq"] == pytest.approx((4.644 + WORST) / 2, abs=1e-3)


@pytest.mark.slow
def test_dnsmos_is_that_of_speechmos() -> None:
    dnsmos = pytest.importorskip("speechmos.dnsmos")
    clip, noisy = _clips()
    found, wanted = Dnsmos().measure(_pair(clip, noisy)), dnsmos.run(noisy, sr=RATE)
    for name, of_package in (("", "ovrl_mos"), ("_signal", "sig_mos"), ("_background", "bak_mos")):
        assert found[f"dnsmos{name}"] == pytest.approx(float(wanted[of_package]), abs=1e-5)
    # Samples beyond full scale are clipped, as in a file.
    loud = (5 * noisy).astype(np.float32)
    clipped = Dnsmos().measure(_pair(clip, np.clip(loud, -1, 1)))
    assert Dnsmos().measure(_pair(clip, loud)) == clipped


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [3, 9.3])
def test_distillmos_is_that_of_package(seconds: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Its windows are rated one by one."""
    package = pytest.importorskip("distillmos")
    clip, noisy = _clips(seconds)
    found = DistillMos().measure(_pair(clip, noisy))["distillmos"]
    assert capsys.readouterr().out == ""
    with torch.inference_mode():
        wanted = float(package.ConvTransformerSQAModel().eval()(torch.from_numpy(noisy)[None]))
    assert found == pytest.approx(wanted, abs=1e-3)


@pytest.mark.slow
def test_speaker_similarity_is_cosine_of_embeddings() -> None:
    resemblyzer = pytest.importorskip("resemblyzer")
    clip, noisy = _clips()
    encoder = resemblyzer.VoiceEncoder("cpu", verbose=False)
    embeddings = [
        encoder.embed_utterance(resemblyzer.normalize_volume(one, -30, increase_only=True)) for one in (clip, noisy)
    ]
    wanted = float(embeddings[0] @ embeddings[1])
    assert SpeakerSimilarity().measure(_pair(clip, noisy))["speaker_similarity"] == pytest.approx(wanted, abs=1e-5)
    assert SpeakerSimilarity().measure(_pair(clip, clip))["speaker_similarity"] == pytest.approx(1)
    other = voice(3, RATE, pitch=240, seed=3)
    assert SpeakerSimilarity().measure(_pair(clip, other))["speaker_similarity"] < wanted


@pytest.mark.slow
def test_visqol_is_that_of_package() -> None:
    api = pytest.importorskip("visqol.api")
    for metric, mode, rate in ((VisqolAudio(), "audio", 48_000), (VisqolSpeech(), "speech", RATE)):
        clip = voice(2, rate)
        noisy = (clip + np.random.default_rng(1).normal(0, 0.01, len(clip))).astype(np.float32)
        package = api.VisqolApi()
        package.create(mode=mode, use_lattice_model=False)
        name = f"visqol_{mode}"
        wanted = package.measure_from_arrays(clip, noisy, rate).moslqo
        assert metric.measure(_pair(clip, noisy, sample_rate=rate))[name] == pytest.approx(wanted, abs=1e-9)
        assert metric.measure(_pair(clip, clip, sample_rate=rate))[name] > 4.7
        assert metric.measure(_pair(clip, 0 * clip, sample_rate=rate))[name] == 1


class _Loudest(torch.nn.Module):
    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        return 1 + waves.abs().amax(1)


class _Samples(torch.nn.Module):
    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        return waves


@scripted
def test_utmos_is_result_of_file(tmp_path: Path) -> None:
    clip, noisy = _clips()
    torch.jit.script(_Loudest()).save(tmp_path / "utmos.pt")
    found = Utmos(tmp_path / "utmos.pt").measure(_pair(clip, noisy))["utmos"]
    assert found == pytest.approx(1 + float(np.abs(noisy).max()))


@scripted
def test_utmos_refuses_other_files(tmp_path: Path) -> None:
    torch.jit.script(_Samples()).save(tmp_path / "samples.pt")
    (tmp_path / "text.pt").write_text("no model")
    for name, word in (("samples.pt", "one score"), ("text.pt", "TorchScript")):
        with pytest.raises(CheckpointError, match=word):
            Utmos(tmp_path / name).measure(_pair(*_clips()))
