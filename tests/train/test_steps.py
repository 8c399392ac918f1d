"""A step's result does not depend on how it is computed: in parts, on several ranks, in one pass or two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from codectok import InputError
from codectok.train.adversary import Adversary
from codectok.train.config import TrainConfig, load_train_config
from codectok.train.ranks import Ranks
from codectok.train.trainer import Trainer

from ..ranks import run_on_ranks
from .conftest import first_batches, tiny_config

CPU = torch.device("cpu")
NO_CHANCE = ("codec.encoder.drop_path_rate=0.0", "discriminators.start_step=0")


def started(config: TrainConfig) -> Trainer:
    trainer = Trainer(config, CPU)
    trainer.initialize_codebooks(first_batches(config))
    return trainer


def state_after_a_step(config: TrainConfig, ranks: Ranks | None = None) -> dict[str, Tensor]:
    """Gradients of all parameters, as their first moments, and all codebook statistics.

    Not the weights: AdamW divides gradients by their size, and so makes rounding in the smallest as large as any.
    """
    trainer = Trainer(config, CPU, ranks=ranks)
    batch = next(first_batches(config))
    trainer.train_step(batch if ranks is None else batch.chunk(ranks.world_size)[ranks.rank])
    state = {f"buffer.{name}": buffer for name, buffer in trainer.network.named_buffers()}
    for part, module, optimizer in (
        ("network", trainer.network, trainer.optimizer),
        ("adversary", trainer.adversary, trainer.adversary.optimizer),
    ):
        for name, parameter in module.named_parameters():
            state[f"{part}.{name}"] = optimizer.state[parameter]["exp_avg"]
    return state


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        largest = float(tensor.abs().max()) if tensor.numel() else 0.0
        difference = float((found[name] - tensor).abs().max()) if tensor.numel() else 0.0
        assert difference <= 1e-3 * largest + 1e-9, f"{name}: {difference:g} of {largest:g}"


def test_a_batch_in_parts_is_the_batch(shards: Path, tmp_path: Path) -> None:
    whole = state_after_a_step(tiny_config(shards, tmp_path / "a", *NO_CHANCE))
    parts = state_after_a_step(tiny_config(shards, tmp_path / "b", *NO_CHANCE, "accumulation=2"))
    assert_close(parts, whole)


def state_on_rank(config: TrainConfig) -> dict[str, Tensor]:
    return state_after_a_step(config, Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size()))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_ranks_are_one_with_both_batches(accumulation: int, shards: Path, tmp_path: Path) -> None:
    alone = state_after_a_step(tiny_config(shards, tmp_path / "a", *NO_CHANCE))
    config = tiny_config(shards, tmp_path / "b", *NO_CHANCE, f"accumulation={accumulation}")
    first, second = run_on_ranks(state_on_rank, 2, config)
    for name in first:
        assert torch.equal(first[name], second[name]), name
    assert_close(first, alone)


def test_a_batch_that_cannot_be_shared_is_refused(shards: Path, tmp_path: Path) -> None:
    from codectok.train.run import TrainingRun

    config = tiny_config(shards, tmp_path / "run", "accumulation=2", "data.batch_size=6")
    with pytest.raises(InputError, match="multiple of 4"):
        TrainingRun(config, CPU, Ranks(0, 2), lambda step, scalars: None)


def test_real_and_generated_are_judged_together_as_apart(shards: Path, tmp_path: Path) -> None:
    adversary = started(tiny_config(shards, tmp_path / "run")).adversary.eval()
    real, generated = torch.randn(2, 3, 6144)
    together = [judgement.split(3) for judgement in adversary(torch.cat([real, generated]))]
    for (first, second), one, other in zip(together, adversary(real), adversary(generated), strict=True):
        for found, expected in ((first, one), (second, other)):
            torch.testing.assert_close(found.logits, expected.logits)
            torch.testing.assert_close(found.features, expected.features)


def spectral_vectors(adversary: Adversary) -> list[Tensor]:
    return [buffer.clone() for name, buffer in adversary.named_buffers() if name.endswith(("_u", "_v"))]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_spectral_norm_takes_one_power_iteration_a_step(accumulation: int, shards: Path, tmp_path: Path) -> None:
    trainer = started(tiny_config(shards, tmp_path / "run", *NO_CHANCE, f"accumulation={accumulation}"))
    before = spectral_vectors(trainer.adversary)
    # What one iteration makes of the weights before the step.
    trainer.adversary.train()(torch.zeros(1, 6144))
    once = spectral_vectors(trainer.adversary)
    assert any(not torch.equal(a, b) for a, b in zip(before, once, strict=True))
    for vector, old in zip(
        (b for n, b in trainer.adversary.named_buffers() if n.endswith(("_u", "_v"))), before, strict=True
    ):
        vector.copy_(old)
    trainer.train_step(next(iter(first_batches(trainer.config))))
    for found, expected in zip(spectral_vectors(trainer.adversary), once, strict=True):
        assert torch.equal(found, expected)


def gradients(module: torch.nn.Module) -> list[str]:
    return [name for name, parameter in module.named_parameters() if parameter.grad is not None]


def test_each_loss_reaches_what_it_should_and_nothing_else(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", *NO_CHANCE)
    trainer = started(config)
    real = next(iter(first_batches(config)))
    output = trainer.network(trainer.log_mel(real))
    asked = trainer.adversary.generator_losses(real, output.waveform)
    (asked.adversarial + asked.feature_matching).backward(retain_graph=True)
    assert gradients(trainer.adversary) == []
    assert gradients(trainer.network) == [name for name, _ in trainer.network.named_parameters()]
    trainer.network.zero_grad()
    output.quantizer.commitment_loss.backward(retain_graph=True)
    reached = {name.partition(".")[0] for name in gradients(trainer.network)}
    assert reached == {"encoder", "quantizer"}
    assert not any("project_out" in name for name in gradients(trainer.network))
    trainer.network.zero_grad()
    for discriminator in trainer.adversary.discriminators:
        trainer.adversary.zero_grad()
        for judgement in discriminator(output.waveform.detach()):
            judgement.logits.sum().backward()
        others = [other for other in trainer.adversary.discriminators if other is not discriminator]
        assert gradients(discriminator) == [name for name, _ in discriminator.named_parameters()]
        assert all(gradients(other) == [] for other in others)
    assert gradients(trainer.network) == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_losses_and_spectra_are_in_float32(precision: str, shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", *NO_CHANCE, f"precision={precision}")
    trainer = started(config)
    scalars = trainer.train_step(next(iter(first_batches(config))))
    assert {name for name, value in scalars.items() if value.dtype != torch.float32} == set()
    assert all(torch.isfinite(value) for value in scalars.values())
    assert all(parameter.dtype == torch.float32 for parameter in trainer.network.parameters())


def test_half_precision_learns_as_well(shards: Path, tmp_path: Path) -> None:
    found = {}
    for precision in ("float32", "bfloat16"):
        overrides = [f"data.shards={shards}", f"output={tmp_path}", f"precision={precision}", "data.batch_size=4"]
        config = load_train_config("nano", [*overrides, "steps=10"])
        trainer = started(config)
        found[precision] = [float(trainer.train_step(batch)["mel_1024"]) for batch in first_batches(config)]
    assert found["float32"][-1] < 0.8 * found["float32"][0]
    assert found["bfloat16"][-1] == pytest.approx(found["float32"][-1], rel=0.15)


def test_every_optional_term_is_learned_from(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", *NO_CHANCE, "loss.waveform=1.0", "loss.diversity=0.5")
    trainer = started(config)
    scalars = [trainer.train_step(batch) for _, batch in zip(range(6), first_batches(config), strict=False)]
    assert {"waveform", "diversity"} <= scalars[0].keys()
    assert all(torch.isfinite(value) for step in scalars for value in step.values())
    total = scalars[0]["generator"]
    weights = config.loss
    mels = sum(term.weight * scalars[0][f"mel_{term.n_fft}"] for term in weights.mel)
    rest = {
        name: getattr(weights, name)
        for name in ("commitment", "waveform", "diversity", "adversarial", "feature_matching")
    }
    torch.testing.assert_close(total, mels + sum(weight * scalars[0][name] for name, weight in rest.items()))


def test_averaged_weights_are_those_of_the_codec(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", *NO_CHANCE, "weight_average=0.5")
    trainer = started(config)
    expected = [p.detach().clone() for p in trainer.network.parameters()]
    for _, batch in zip(range(3), first_batches(config), strict=False):
        trainer.train_step(batch)
        expected = [
            0.5 * average + 0.5 * p.detach() for average, p in zip(expected, trainer.network.parameters(), strict=True)
        ]
    plain = [p.detach().clone() for p in trainer.network.parameters()]
    with trainer.averaged():
        torch.testing.assert_close([p.detach() for p in trainer.network.parameters()], expected)
    assert all(torch.equal(a, b.detach()) for a, b in zip(plain, trainer.network.parameters(), strict=True))
    with trainer.averaged():
        weight = trainer.network.encoder.stem.weight.detach().clone()
    torch.testing.assert_close(trainer.export().network.encoder.stem.weight, weight)
