"""Training of the decoder alone: codes stay as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from codectok import Codec, InputError
from codectok.loading import check_made_by
from codectok.train import Trainer, train
from codectok.train.distributed import Ranks
from codectok.train.run.checkpoint_codec import codec_of_checkpoint
from codectok.train.trainer.optimizer import ScheduledOptimizer
from tests.helpers.command_line import codectok
from tests.helpers.ranks import own_rank, run_on_ranks
from tests.train.conftest import assert_equal, codec_of, final_state, first_batches, tiny_config

CPU = torch.device("cpu")
DECODER_ONLY = ("train_only=decoder", "weight_average=0.9", "generator_optimizer.learning_rate=0.01")
QUANTIZERS = {
    "ema": (),
    "simvq": ("codec.quantizer={type: simvq, codebook_size: 64, codebook_dim: 8}",),
    "fsq": ("codec.quantizer={type: fsq, levels: [8, 8]}",),
}
ISTFT = "codec.decoder={type: istft, dim: 16, depth: 1}"


def first_run(shards: Path, output: Path, *changes: str) -> Path:
    """Train a codec for some steps; returns its folder."""
    train(tiny_config(shards, output, *changes, steps=2))
    return output / "codec"


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_only_the_decoder_changes(quantizer: str, shards: Path, tmp_path: Path) -> None:
    changes = QUANTIZERS[quantizer]
    before = Codec.from_pretrained(first_run(shards, tmp_path / "first", *changes), device="cpu")
    config = tiny_config(shards, tmp_path / "run", *changes, *DECODER_ONLY, f"init_from={tmp_path / 'first'}")
    after = codec_of(train(config))
    old, new = before.network.state_dict(), after.network.state_dict()
    changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert changed == {"decoder"}
    waveform = next(first_batches(config))[0]
    assert torch.equal(before.encode(waveform, 24_000), after.encode(waveform, 24_000))


def test_zeros_keep_their_sign(shards: Path, tmp_path: Path) -> None:
    """Weights in float16 have negative zeros, which an average would change, and with them the hash."""
    codec = Codec.from_pretrained(first_run(shards, tmp_path / "first"), device="cpu")
    with torch.no_grad():
        codec.network.encoder.stem.weight[0] = -0.0
        codec.network.quantizer.codebooks[0, 0] = -0.0
    codec.save_pretrained(tmp_path / "zeros")
    train(tiny_config(shards, tmp_path / "run", *DECODER_ONLY, f"init_from={tmp_path / 'zeros'}", steps=14))
    assert len(codec_of_checkpoint(tmp_path / "run").decodable_fingerprints) == 2


def test_use_of_codes_is_counted(shards: Path, tmp_path: Path) -> None:
    folder = first_run(shards, tmp_path / "first")
    config = tiny_config(shards, tmp_path / "run", *DECODER_ONLY, f"init_from={folder}")
    trainer = Trainer(config, CPU)
    assert trainer.skips_codebook_init
    state = {name: tensor.clone() for name, tensor in trainer.network.quantizer.inner.state_dict().items()}
    trainer.network.eval().train()
    trainer.train_step(next(first_batches(config)))
    assert 0 < float(trainer.network.quantizer.codebook_metrics()["codebook_usage"]) < 1
    assert_equal(trainer.network.quantizer.inner.state_dict(), state)


def test_resumed_run_equals_uninterrupted_run(shards: Path, tmp_path: Path) -> None:
    folder = first_run(shards, tmp_path / "first", ISTFT)
    options = (ISTFT, *DECODER_ONLY, "generator_optimizer.method=muon", f"init_from={folder}")
    train(tiny_config(shards, tmp_path / "whole", *options, steps=6))
    for steps in (3, 6):
        train(tiny_config(shards, tmp_path / "parts", *options, steps=steps))
    assert_equal(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))


def gradients(options: tuple[str, ...], shards: Path, output: Path) -> dict[str, Tensor]:
    """First moments of the decoder's parameters after a step on this rank, which are its gradients."""
    config = tiny_config(shards, output, *options)
    ranks = own_rank() if torch.distributed.is_initialized() else Ranks()
    trainer = Trainer(config, CPU, ranks=ranks)
    trainer.train_step(next(first_batches(config)).chunk(ranks.world_size)[ranks.rank])
    parameters = trainer.network.decoder.named_parameters()
    return {name: trainer.optimizer.adamw.state[parameter]["exp_avg"] for name, parameter in parameters}


def test_two_ranks_equal_one_rank(shards: Path, tmp_path: Path) -> None:
    folder = first_run(shards, tmp_path / "first")
    options = (*DECODER_ONLY, f"init_from={folder}", "discriminators.start_step=0")
    alone = gradients(options, shards, tmp_path / "alone")
    first, second = run_on_ranks(gradients, 2, options, shards, tmp_path / "ranks")
    assert_equal(first, second)
    for name, tensor in alone.items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-3, atol=1e-3 * float(tensor.abs().max()))


def test_optimizer_has_the_decoder_only(shards: Path, tmp_path: Path) -> None:
    folder = first_run(shards, tmp_path / "first", ISTFT)
    trainer = Trainer(tiny_config(shards, tmp_path / "run", ISTFT, *DECODER_ONLY, f"init_from={folder}"), CPU)
    for method in ("adamw", "muon"):
        config = trainer.config.generator_optimizer.model_copy(update={"method": method})
        optimizer = ScheduledOptimizer(trainer.network, config)
        parts = [part for part in (optimizer.adamw, optimizer.muon) if part is not None]
        found = {id(one) for part in parts for group in part.param_groups for one in group["params"]}
        assert found == {id(parameter) for parameter in trainer.network.decoder.parameters()}


def test_codec_decodes_codes_of_those_that_it_was_trained_from(shards: Path, tmp_path: Path) -> None:
    first = Codec.from_pretrained(first_run(shards, tmp_path / "first"), device="cpu")
    for name, before in (("second", "first"), ("third", "second")):
        config = tiny_config(shards, tmp_path / name, *DECODER_ONLY, f"init_from={tmp_path / before}", steps=4)
        train(config.model_copy(update={"steps": 3}))
        train(config)  # resumed
    second, third = (Codec.from_pretrained(tmp_path / name / "codec", device="cpu") for name in ("second", "third"))
    expected = (third.fingerprint, second.fingerprint, first.fingerprint)
    assert third.decodable_fingerprints == codec_of_checkpoint(tmp_path / "third").decodable_fingerprints == expected
    assert len(set(expected)) == 3
    check_made_by(third, "codes.npz", first.describe())
    with pytest.raises(InputError, match="another codec"):
        check_made_by(first, "codes.npz", third.describe())


def test_decode_takes_tokens_of_the_first_codec(shards: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 24_000), 24_000)
    folder = first_run(shards, tmp_path / "first")
    train(tiny_config(shards, tmp_path / "run", *DECODER_ONLY, f"init_from={folder}", steps=2))
    assert codectok("encode", tmp_path / "noise.wav", tmp_path / "codes.npz", "--codec", folder).exit_code == 0
    decoded = codectok("decode", tmp_path / "codes.npz", tmp_path / "decoded", "--codec", tmp_path / "run" / "codec")
    assert decoded.exit_code == 0, decoded.output
    shown = codectok("inspect", tmp_path / "run" / "codec").output
    assert Codec.from_pretrained(folder, device="cpu").fingerprint in "".join(shown.replace("│", "").split())


def test_rounding_the_encoder_changes_codes(shards: Path, tmp_path: Path) -> None:
    def saved(codec: Codec, name: str) -> Codec:
        codec.save_pretrained(tmp_path / name, "float16")
        return Codec.from_pretrained(tmp_path / name, device="cpu")

    def tuned(name: str, before: Path) -> Codec:
        return codec_of(train(tiny_config(shards, tmp_path / name, *DECODER_ONLY, f"init_from={before}", steps=2)))

    first = Codec.from_pretrained(first_run(shards, tmp_path / "first"), device="cpu")
    rounded = saved(tuned("second", tmp_path / "first"), "rounded-second")
    assert rounded.decodable_fingerprints == (rounded.fingerprint,)
    assert rounded.header.same_codes is None
    # The encoder of a codec in float16 stays as it is.
    half = saved(first, "half")
    third = tuned("third", tmp_path / "half")
    again = saved(third, "rounded-third")
    assert again.decodable_fingerprints == (again.fingerprint, third.fingerprint, half.fingerprint)
    assert saved(again, "same").header == again.header


def test_changed_encoder_is_noticed(shards: Path, tmp_path: Path) -> None:
    folder = first_run(shards, tmp_path / "first")
    trainer = Trainer(tiny_config(shards, tmp_path / "run", *DECODER_ONLY, f"init_from={folder}"), CPU)
    assert len(trainer.export().decodable_fingerprints) == 2
    trainer.network.encoder.stem.weight[0, 0, 0] += 1
    with trainer.averaged():
        trainer.network.encoder.stem.weight[0, 0, 0] += 1
    assert len(trainer.export().decodable_fingerprints) == 1


@pytest.mark.parametrize("then", ["all", "decoder"])
def test_resume_from_another_kind_of_run_is_refused(then: str, shards: Path, tmp_path: Path) -> None:
    folder = first_run(shards, tmp_path / "first")
    decoder = (*DECODER_ONLY, f"init_from={folder}")
    options: dict[str, tuple[str, ...]] = {"decoder": decoder, "all": ("weight_average=0.9",)}
    (before,) = options.keys() - {then}
    train(tiny_config(shards, tmp_path / "before", *options[before], steps=2))
    origin = f"resume_from={tmp_path / 'before' / 'checkpoints' / 'step-00000002'}"
    with pytest.raises(InputError, match="init_from"):
        train(tiny_config(shards, tmp_path / "then", *options[then], origin, steps=4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("codec.quantizer.codebook_size=32", "another quantizer .*codebook_size 64, not 32"),
        ("loss.distillation=1.0", "set them to 0"),
        ("loss.diversity=1.0", "set them to 0"),
        ("generator_optimizer.method=muon", "no linear layers"),
        ("init_from=null", "needs init_from"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change: str, message: str, shards: Path, tmp_path: Path) -> None:
    folder = first_run(shards, tmp_path / "first")
    with pytest.raises(InputError, match=message):
        train(tiny_config(shards, tmp_path / "run", "train_only=decoder", f"init_from={folder}", change))
