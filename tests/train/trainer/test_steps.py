"""Training steps: the same result in microbatches and on several ranks; losses, gradients and averages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from codectok import InputError
from codectok.train import TrainConfig, Trainer, load_train_config
from codectok.train.discriminators import MultiDiscriminator
from codectok.train.distributed import Ranks
from codectok.train.recipe import OptimizerConfig
from codectok.train.run.checkpoint import load_training_state, save_training_state
from codectok.train.trainer.adversary import Adversary
from codectok.train.trainer.optimizer import learning_rate
from tests.helpers.codebook_learning import first_codebook
from tests.helpers.ranks import run_on_ranks
from tests.helpers.waiting import NoWaiting
from tests.train.conftest import first_batches, tiny_config

CPU = torch.device("cpu")
DETERMINISTIC = ("codec.encoder.drop_path_rate=0.0", "discriminators.start_step=0")


def started(config: TrainConfig) -> Trainer:
    trainer = Trainer(config, CPU)
    trainer.initialize_codebooks(first_batches(config))
    return trainer


def state_after_a_step(config: TrainConfig, ranks: Ranks | None = None) -> dict[str, Tensor]:
    """First moments of all parameters, which are their gradients, and all buffers.

    Weights are not compared: AdamW normalizes gradients and so amplifies rounding in small ones.
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
            state[f"{part}.{name}"] = optimizer.adamw.state[parameter]["exp_avg"]
    return state


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        largest = float(tensor.abs().max()) if tensor.numel() else 0.0
        difference = float((found[name] - tensor).abs().max()) if tensor.numel() else 0.0
        assert difference <= 1e-3 * largest + 1e-9, f"{name}: {difference:g} of {largest:g}"


def test_microbatches_equal_the_whole_batch(shards: Path, tmp_path: Path) -> None:
    whole = state_after_a_step(tiny_config(shards, tmp_path / "a", *DETERMINISTIC))
    parts = state_after_a_step(tiny_config(shards, tmp_path / "b", *DETERMINISTIC, "accumulation=2"))
    assert_close(parts, whole)


def state_on_rank(config: TrainConfig) -> dict[str, Tensor]:
    return state_after_a_step(config, Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size()))


# More codes than a batch has frames, so that the initialization takes several batches.
MANY_CODES = ("codec.quantizer.codebook_size=128", "codec.quantizer.n_residuals=1")


def initial_codebook(config: TrainConfig) -> Tensor:
    distributed = torch.distributed.is_initialized()
    ranks = Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else Ranks()
    trainer = Trainer(config, CPU, ranks=ranks)
    trainer.initialize_codebooks(batch.chunk(ranks.world_size)[ranks.rank] for batch in first_batches(config))
    return first_codebook(trainer.network.quantizer).embedding.clone()


def test_two_ranks_initialize_the_same_codebook(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", *MANY_CODES, steps=20)
    alone = initial_codebook(config)
    for found in run_on_ranks(initial_codebook, 2, config):
        torch.testing.assert_close(found, alone, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_ranks_equal_one_rank(accumulation: int, shards: Path, tmp_path: Path) -> None:
    alone = state_after_a_step(tiny_config(shards, tmp_path / "a", *DETERMINISTIC))
    config = tiny_config(shards, tmp_path / "b", *DETERMINISTIC, f"accumulation={accumulation}")
    first, second = run_on_ranks(state_on_rank, 2, config)
    for name in first:
        assert torch.equal(first[name], second[name]), name
    assert_close(first, alone)


def test_uneven_batch_size_is_refused(shards: Path, tmp_path: Path) -> None:
    from codectok.train.run.run import TrainingRun

    config = tiny_config(shards, tmp_path / "run", "accumulation=2", "data.batch_size=6")
    with pytest.raises(InputError, match="multiple of 4"):
        TrainingRun(config, CPU, Ranks(0, 2), lambda step, metrics: None)


def test_discriminator_outputs_do_not_depend_on_concatenation(shards: Path, tmp_path: Path) -> None:
    adversary = started(tiny_config(shards, tmp_path / "run")).adversary.eval()
    real, generated = torch.randn(2, 3, 6144)
    together = [output.split(3) for output in adversary(torch.cat([real, generated]))]
    for (first, second), one, other in zip(together, adversary(real), adversary(generated), strict=True):
        for found, expected in ((first, one), (second, other)):
            torch.testing.assert_close(found.logits, expected.logits)
            torch.testing.assert_close(found.features, expected.features)


def spectral_vectors(adversary: Adversary) -> list[Tensor]:
    return [buffer.clone() for name, buffer in adversary.named_buffers() if name.endswith(("_u", "_v"))]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_spectral_norm_takes_one_power_iteration_per_step(accumulation: int, shards: Path, tmp_path: Path) -> None:
    trainer = started(tiny_config(shards, tmp_path / "run", *DETERMINISTIC, f"accumulation={accumulation}"))
    before = spectral_vectors(trainer.adversary)
    # One power iteration on the weights before the step.
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


def test_losses_reach_only_their_own_parameters(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", *DETERMINISTIC)
    trainer = started(config)
    real = next(iter(first_batches(config)))
    output = trainer.network(trainer.log_mel(real))
    losses = trainer.adversary.generator_losses(real, output.waveform)
    (losses.adversarial + losses.feature_matching).backward(retain_graph=True)
    assert gradients(trainer.adversary) == []
    assert gradients(trainer.network) == [name for name, _ in trainer.network.named_parameters()]
    trainer.network.zero_grad()
    output.quantizer.commitment_loss.backward(retain_graph=True)
    reached = {name.partition(".")[0] for name in gradients(trainer.network)}
    assert reached == {"encoder", "quantizer"}
    assert not any("project_out" in name for name in gradients(trainer.network))
    trainer.network.zero_grad()
    trainer.adversary.train_step([(real, output.waveform)], 0)
    assert gradients(trainer.network) == []


def test_each_output_trains_its_own_discriminator(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run")
    adversary = started(config).adversary
    real = next(first_batches(config))
    names = []
    for kind, several in enumerate(adversary.discriminators):
        assert isinstance(several, MultiDiscriminator)
        names += [f"discriminators.{kind}.discriminators.{number}." for number in range(len(several.discriminators))]
    assert len(adversary(real)) == len(names) > len(adversary.discriminators)
    for number, name in enumerate(names):
        adversary.zero_grad()
        adversary(real)[number].logits.sum().backward()
        assert gradients(adversary) == [own for own, _ in adversary.named_parameters() if own.startswith(name)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_losses_and_spectra_are_float32(
    precision: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(shards, tmp_path / "run", *DETERMINISTIC, f"precision={precision}")
    trainer = started(config)
    taken: list[torch.dtype] = []
    stft = torch.stft

    def noted(waveform: Tensor, *arguments: Any, **options: Any) -> Tensor:
        taken.append(waveform.dtype)
        return stft(waveform, *arguments, **options)

    monkeypatch.setattr(torch, "stft", noted)
    scalars = trainer.train_step(next(iter(first_batches(config))))
    assert len(taken) > 2 * len(config.loss.mel) and set(taken) == {torch.float32}
    assert {name for name, value in scalars.items() if value.dtype != torch.float32} == set()
    assert all(torch.isfinite(value) for value in scalars.values())
    assert all(parameter.dtype == torch.float32 for parameter in trainer.network.parameters())


def test_bfloat16_learns_as_well_as_float32(shards: Path, tmp_path: Path) -> None:
    found = {}
    for precision in ("float32", "bfloat16"):
        overrides = [f"data.shards={shards}", f"output={tmp_path}", f"precision={precision}", "data.batch_size=4"]
        config = load_train_config("nano", [*overrides, "steps=10"])
        trainer = started(config)
        found[precision] = [float(trainer.train_step(batch)["mel_1024"]) for batch in first_batches(config)]
    assert found["float32"][-1] < 0.8 * found["float32"][0]
    assert found["bfloat16"][-1] == pytest.approx(found["float32"][-1], rel=0.15)


def test_optional_loss_terms_add_to_the_total(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", *DETERMINISTIC, "loss.waveform=1.0", "loss.diversity=0.5")
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


def test_exported_codec_has_averaged_weights(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", *DETERMINISTIC, "weight_average=0.5")
    trainer = started(config)
    expected = [p.detach().clone() for p in trainer.network.parameters()]
    for number, batch in zip(range(1, 4), first_batches(config), strict=False):
        trainer.train_step(batch)
        decay = number / (10 + number)  # smaller than the configured one during the first steps
        weights = [p.detach() for p in trainer.network.parameters()]
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, weights, strict=True)]
    plain = [p.detach().clone() for p in trainer.network.parameters()]
    with trainer.averaged():
        torch.testing.assert_close([p.detach() for p in trainer.network.parameters()], expected)
    assert all(torch.equal(a, b.detach()) for a, b in zip(plain, trainer.network.parameters(), strict=True))
    with trainer.averaged():
        weight = trainer.network.encoder.stem.weight.detach().clone()
    torch.testing.assert_close(trainer.export().network.encoder.stem.weight, weight)


def test_distillation_works_across_time_factors(shards: Path, tmp_path: Path) -> None:
    """The student has 25 frames; the teacher pads them to 13 pairs, which become 26 frames."""
    teacher = Trainer(tiny_config(shards, tmp_path / "run", "codec.quantizer.time_factors=[2]"), CPU)
    teacher.export().save_pretrained(tmp_path / "teacher")
    distilled = [f"init_from={tmp_path / 'teacher'}", "loss.distillation=1.0", "data.segment_seconds=0.2667"]
    config = tiny_config(shards, tmp_path / "student", *distilled)
    assert config.segment_samples // config.codec.frame_size % 2 == 1
    losses = Trainer(config, CPU).train_step(next(first_batches(config)))
    assert losses["distillation"] > 0


def test_late_discriminator_has_its_own_warm_up(shards: Path, tmp_path: Path) -> None:
    options = ["discriminators.start_step=5", "discriminator_optimizer.warmup_steps=10"]
    trainer = started(tiny_config(shards, tmp_path / "run", *options))
    trainer.step = 5
    trainer.train_step(next(first_batches(trainer.config)))
    rate = trainer.config.discriminator_optimizer.learning_rate
    assert trainer.adversary.optimizer.adamw.param_groups[0]["lr"] == pytest.approx(rate / 10)


def test_learning_rate_rises_holds_and_falls() -> None:
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=10, constant_steps=20, cosine_steps=40, final_share=0.1)
    rates = [learning_rate(config, step) for step in (0, 9, 10, 29, 30, 50, 70, 100)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 1.0, 1.0, 0.55, 0.1, 0.1])
    decaying = OptimizerConfig(learning_rate=1.0, constant_steps=2, decay_per_step=0.5)
    assert [learning_rate(decaying, step) for step in range(5)] == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.25])


def test_early_weight_average_follows_the_weights(shards: Path, tmp_path: Path) -> None:
    trainer = started(tiny_config(shards, tmp_path / "run", "weight_average=0.9999"))
    weights = dict(trainer.network.named_parameters())
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    book = first_codebook(trainer.network.quantizer).embedding
    for batch in first_batches(trainer.config):
        trainer.train_step(batch)
    now = {name: weight.detach().clone() for name, weight in weights.items()}
    codes = book.clone()
    with trainer.averaged():
        distance = sum(float((weights[name].detach() - before[name]).abs().sum()) for name in before)
        assert not torch.equal(first_codebook(trainer.network.quantizer).embedding, codes)
    assert distance > 0.3 * sum(float((now[name] - before[name]).abs().sum()) for name in before)
    assert all(torch.equal(weights[name], now[name]) for name in now)


def test_loaded_optimizer_counters_stay_on_cpu(shards: Path, tmp_path: Path) -> None:
    """Step counters stay on the CPU: on a GPU every step of AdamW would wait for them."""
    trainer = started(tiny_config(shards, tmp_path / "run"))
    trainer.train_step(next(first_batches(trainer.config)))
    of_the_run = {"position": 1, "data_hash": "", "best": None, "validation": None, "log": {}}
    checkpoint = save_training_state(tmp_path / "checkpoints", 1, {**trainer.state_dict(), **of_the_run}, "")
    state = load_training_state(checkpoint)
    steps = [entry["step"] for entry in state["optimizer"]["state"].values()]
    assert steps and all(step.device.type == "cpu" for step in steps)


def test_replaced_code_is_not_averaged_with_its_old_position(shards: Path, tmp_path: Path) -> None:
    trainer = started(tiny_config(shards, tmp_path / "run", "weight_average=0.9999"))
    book = first_codebook(trainer.network.quantizer)
    batches = list(first_batches(trainer.config))
    book.embedding[3:] = 1e4  # far from all features
    for batch in batches[:3]:
        trainer.train_step(batch)
    usage = trainer.network.quantizer.usage
    assert usage is not None
    usage.counts.zero_()
    usage.counts[:, :3] = usage.counts.shape[1] * 40
    usage._tokens = int(usage.counts[0].sum())  # the window is full, and only three codes were used in it
    trainer.train_step(batches[3])
    assert book.replaced is not None
    assert int(book.replaced.sum()) == 61
    embedding = book.embedding.clone()
    with trainer.averaged():
        assert torch.equal(book.embedding[book.replaced], embedding[book.replaced])
        assert not torch.equal(book.embedding, embedding)
    trainer.train_step(batches[4])
    assert book.replaced is None


VARIANTS = {
    "float32": [],
    "bfloat16": ["precision=bfloat16"],
    "everything": [
        "accumulation=2", "weight_average=0.9", "loss.diversity=0.1", "loss.waveform=1.0",
        "generator_optimizer.max_gradient_norm=1.0", "discriminator_optimizer.max_gradient_norm=1.0",
    ],
}  # fmt: skip


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_training_step_makes_no_gpu_sync(options: list[str], shards: Path, tmp_path: Path) -> None:
    trainer = started(tiny_config(shards, tmp_path / "run", "discriminators.start_step=0", *options))
    first, *rest = first_batches(trainer.config)
    trainer.train_step(first)  # creates state such as the optimizers' moments
    with NoWaiting():
        for batch in rest:
            trainer.train_step(batch)
    assert trainer.step == trainer.config.steps
