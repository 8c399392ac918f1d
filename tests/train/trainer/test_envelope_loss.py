"""The loss of band envelopes: what it ignores, what it measures, and its gradients at silence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pystoi import stoi
from torch import Tensor

from codectok import ConfigError
from codectok.train import Trainer
from codectok.train.trainer.envelope_loss import EnvelopeLoss
from tests.train.conftest import first_batches, tiny_config

SAMPLE_RATE = 24_000


def speechlike(seed: int = 0, seconds: float = 2.0, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """Noise [1, T] whose level changes slowly, differently below and above 1 kHz."""
    generator = torch.Generator().manual_seed(seed)
    n_samples = int(seconds * sample_rate)
    spectrum = torch.fft.rfft(torch.randn(1, n_samples, generator=generator))
    frequencies = torch.fft.rfftfreq(n_samples, 1 / sample_rate)
    total = torch.zeros(1, n_samples)
    for band in (frequencies < 1000, frequencies >= 1000):
        level = torch.rand(1, 1, int(8 * seconds), generator=generator)
        envelope = torch.nn.functional.interpolate(level, n_samples, mode="linear")[0]
        total += 0.1 * envelope * torch.fft.irfft(spectrum * band, n_samples)
    return total


@pytest.fixture(scope="module")
def loss() -> EnvelopeLoss:
    return EnvelopeLoss(SAMPLE_RATE)


@pytest.mark.parametrize(("gain", "cost"), [(1.0, 0.0), (4.0, 0.0), (0.5, 0.005), (0.25, 0.1)])
def test_level_matters_only_if_it_is_much_lower(loss: EnvelopeLoss, gain: float, cost: float) -> None:
    real = speechlike()
    assert 0 <= float(loss(gain * real, real)) <= cost + 2e-3


@pytest.mark.parametrize("level", [0.01, 0.1, 0.3, 1.0, 10.0])
def test_noise_costs_what_it_takes_from_stoi(loss: EnvelopeLoss, level: float) -> None:
    real = speechlike()
    noisy = real + 0.1 * level * torch.randn(1, 2 * SAMPLE_RATE, generator=torch.Generator().manual_seed(1))
    expected = stoi(real[0].numpy(), noisy[0].numpy(), SAMPLE_RATE)
    assert 1 - float(loss(noisy, real)) == pytest.approx(expected, abs=0.07)


def test_steady_sound_costs_nothing(loss: EnvelopeLoss) -> None:
    # Music: inaudible changes of a steady tone must not cost as much as lost words.
    times = torch.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    tone = 0.3 * torch.sin(2 * torch.pi * 600 * times)[None]
    wavering = [tone * (1 + 0.01 * torch.sin(2 * torch.pi * rate * times)) for rate in (4, 7)]
    assert float(loss(*wavering)) == 0


def test_almost_silent_output_has_a_bounded_gradient(loss: EnvelopeLoss) -> None:
    real, generator = speechlike(), torch.Generator().manual_seed(2)
    norms = []
    for level in (1e-2, 1e-4, 1e-5, 1e-6):
        generated = (level * torch.randn(real.shape, generator=generator)).requires_grad_()
        loss(generated, real).backward()
        assert generated.grad is not None
        norms.append(float(generated.grad.norm()))
    assert max(norms[1:]) < 10 * norms[0] and norms[-1] < norms[-2] < norms[-3]


def test_silence_of_the_original_costs_nothing(loss: EnvelopeLoss) -> None:
    generated = speechlike().requires_grad_()
    cost = loss(generated, torch.zeros(1, 2 * SAMPLE_RATE))
    cost.backward()
    assert float(cost.detach()) == 0 and generated.grad is not None and not generated.grad.any()


def test_silence_in_place_of_speech_has_a_finite_gradient(loss: EnvelopeLoss) -> None:
    generated = torch.zeros(1, 2 * SAMPLE_RATE, requires_grad=True)
    cost = loss(generated, speechlike())
    cost.backward()
    assert float(cost.detach()) == pytest.approx(1, abs=0.05)
    assert generated.grad is not None and generated.grad.isfinite().all()


def test_a_batch_is_the_mean_of_its_clips(loss: EnvelopeLoss) -> None:
    # Also if one of them is silent, since microbatches must equal a whole batch.
    real = torch.cat([speechlike(), torch.zeros(1, 2 * SAMPLE_RATE), speechlike(1)])
    generated = real + 0.02 * torch.randn(real.shape, generator=torch.Generator().manual_seed(2))
    alone = [float(loss(generated[n : n + 1], real[n : n + 1])) for n in range(3)]
    assert float(loss(generated, real)) == pytest.approx(sum(alone) / 3, rel=1e-5)


@pytest.mark.parametrize(("sample_rate", "n_bands"), [(8_000, 14), (16_000, 15), (24_000, 15), (48_000, 15)])
def test_bands_lie_below_half_of_the_sample_rate(sample_rate: int, n_bands: int) -> None:
    loss = EnvelopeLoss(sample_rate)
    assert loss.bands.shape[1] == n_bands
    frequencies = torch.linspace(0, sample_rate / 2, len(loss.bands))
    for number in range(n_bands):
        centre = 150 * 2 ** (number / 3)
        inside = frequencies[loss.bands[:, number] > 0]
        assert centre * 2 ** (-1 / 6) <= inside.min() <= inside.max() < centre * 2 ** (1 / 6)
    assert (loss.bands.sum(1) <= 1).all(), "bands do not overlap"
    real = speechlike(sample_rate=sample_rate)
    assert float(loss(real, real)) == pytest.approx(0, abs=2e-3)


def test_codec_without_bands_of_speech_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no bands of speech"):
        EnvelopeLoss(300)


def test_segments_shorter_than_an_excerpt_are_refused(shards: Path, tmp_path: Path) -> None:
    short = tiny_config(shards, tmp_path / "a", "loss.envelope=1", "data.segment_seconds=0.2")
    with pytest.raises(ConfigError, match=r"needs a data\.segment_seconds of at least 0\.4"):
        Trainer(short, torch.device("cpu"))


def test_it_is_a_term_of_the_generators_loss(shards: Path, tmp_path: Path) -> None:
    long_enough = "data.segment_seconds=0.5"
    batches = list(zip(range(2), first_batches(tiny_config(shards, tmp_path / "a", long_enough)), strict=False))
    totals = []
    for weight in (0.0, 3.0):
        trainer = Trainer(
            tiny_config(shards, tmp_path / "a", long_enough, f"loss.envelope={weight}"), torch.device("cpu")
        )
        trainer.initialize_codebooks(batch for _, batch in batches)
        scalars = trainer.train_step(batches[0][1])
        assert ("envelope" in scalars) == (weight > 0)
        totals.append((float(scalars["generator"]), float(scalars.get("envelope", torch.zeros(())))))
    assert totals[1][0] == pytest.approx(totals[0][0] + 3 * totals[1][1], rel=1e-4)
    assert totals[1][1] > 0


def test_a_negative_weight_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="envelope"):
        tiny_config(shards, tmp_path, "loss.envelope=-1")
