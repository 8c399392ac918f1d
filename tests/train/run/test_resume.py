"""Resuming the same run, and resuming from a checkpoint of another run."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from codectok import InputError
from codectok.train import train
from codectok.train.run.checkpoint import load_training_state
from tests.train.conftest import assert_equal, final_state, tiny_config


@pytest.fixture(scope="module")
def origin(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after four steps."""
    folder = tmp_path_factory.mktemp("origin") / "run"
    train(tiny_config(shards, folder, steps=4))
    return folder / "checkpoints" / "step-00000004"


def test_resumed_run_equals_uninterrupted_run_with_all_options(shards: Path, held_out: Path, tmp_path: Path) -> None:
    """Stopped inside a metrics window, with weight averages, dropped paths, microbatches and validation."""
    options = [
        f"validation.shards={held_out}", "validation.interval=2", "validation.clips=2", "weight_average=0.9",
        "accumulation=2", "codec.encoder.drop_path_rate=0.4", "log_interval=3", "checkpoint_interval=5",
    ]  # fmt: skip
    train(tiny_config(shards, tmp_path / "whole", *options, steps=8))
    for steps in (4, 5, 8):
        train(tiny_config(shards, tmp_path / "parts", *options, steps=steps))
    whole, parts = final_state(tmp_path / "whole"), final_state(tmp_path / "parts")
    assert whole["average"]["steps"] == 8
    assert whole["log"]["window"]["steps"] == 2
    assert_equal(whole, parts)


def test_resume_from_with_same_recipe_is_exact(origin: Path, shards: Path, tmp_path: Path) -> None:
    train(tiny_config(shards, tmp_path / "whole"))
    train(tiny_config(shards, tmp_path / "other", f"resume_from={origin}"))
    whole, other = final_state(tmp_path / "whole"), final_state(tmp_path / "other")
    for part in ("step", "network", "optimizer", "adversary", "adversary_optimizer", "position", "data_hash"):
        assert_equal(whole[part], other[part], part)


def test_resume_from_applies_its_own_recipe(origin: Path, shards: Path, tmp_path: Path) -> None:
    recipe = [
        "generator_optimizer.betas=[0.7, 0.95]", "discriminator_optimizer.learning_rate=1e-5", "weight_average=0.9",
        "loss.mel=[{n_fft: 512, hop_length: 128, weight: 10}]", "data.batch_size=2", "seed=77",
    ]  # fmt: skip
    options = [f"resume_from={origin}", *recipe]
    train(tiny_config(shards, tmp_path / "run", *options, steps=6))
    state = final_state(tmp_path / "run")
    assert state["optimizer"]["param_groups"][0]["betas"] == (0.7, 0.95)
    assert state["adversary_optimizer"]["param_groups"][0]["lr"] == pytest.approx(1e-5, rel=0.01)
    assert state["optimizer"]["state"][0]["step"] == 6
    assert state["average"]["steps"] == 2
    assert state["position"] == 4 * 4 + 2 * 2
    before = load_training_state(origin)["network"]["encoder.stem.weight"]
    assert not torch.equal(before, state["network"]["encoder.stem.weight"])
    # Now the run resumes from its own checkpoint.
    assert train(tiny_config(shards, tmp_path / "run", *options, steps=7)).step == 7


def test_resume_from_reads_other_shards_from_their_beginning(
    origin: Path, held_out: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        train(tiny_config(held_out, tmp_path / "run", f"resume_from={origin}", steps=6))
    assert final_state(tmp_path / "run")["position"] == 2 * 4
    assert "reading restarts at the beginning" in caplog.text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("codec.encoder.depths=[1]", r"another network .*: encoder\.\S+ is \[.*\] in the checkpoint, and missing"),
        ("codec.quantizer.codebook_size=32", r"ema_count is \[64\] in the checkpoint, and \[32\] here"),
        ("discriminators.stft.channels=2", "another adversary"),
        ("steps=4", "at step 4, and steps=4"),
    ],
)
def test_resume_from_refuses_incompatible_configuration(
    override: str, message: str, origin: Path, shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        train(tiny_config(shards, tmp_path / "run", f"resume_from={origin}", override))


def test_resume_from_refuses_other_folders(origin: Path, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\(resume_from\) is not a training checkpoint"):
        train(tiny_config(shards, tmp_path / "run", f"resume_from={origin.parent}"))
    assert not (tmp_path / "run").exists()
