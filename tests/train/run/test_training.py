"""Training goes on exactly where it stopped, and ends with a codec."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from codectok import CheckpointError, Codec, CodectokError, InputError
from codectok.errors import PassingError
from codectok.train.config import TrainConfig
from codectok.train.launch.launch import run_training
from codectok.train.run.checkpoint import latest_checkpoint
from codectok.train.run.dry_run import rehearse
from codectok.train.run.run import TrainingReport, open_dataset
from codectok.train.trainer.trainer import Trainer
from tests.train.conftest import assert_equal, final_state, first_batches, tiny_config


def train(config: TrainConfig) -> TrainingReport:
    return run_training(config, lambda step, scalars: None)


def test_stopping_and_going_on_equals_one_run_to_the_bit(shards: Path, tmp_path: Path) -> None:
    whole = train(tiny_config(shards, tmp_path / "whole"))
    train(tiny_config(shards, tmp_path / "parts", steps=4))
    assert latest_checkpoint(tmp_path / "parts" / "checkpoints").name == "step-00000004"
    parts = train(tiny_config(shards, tmp_path / "parts"))
    assert (whole.ending, parts.ending, parts.step) == ("finished", "finished", 7)
    assert_equal(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
    codecs = [Codec.from_pretrained(report.codec, device="cpu") for report in (whole, parts)]
    assert codecs[0].fingerprint == codecs[1].fingerprint
    assert codecs[0].header.origin == "trained for 7 steps"


def test_the_exported_codec_is_the_trained_network(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run")
    trainer = Trainer(config, torch.device("cpu"))
    dataset = open_dataset(config)
    trainer.initialize_codebooks(first_batches(config))
    for _, batch in zip(range(3), first_batches(config), strict=False):
        trainer.train_step(batch)
    codec = trainer.export()
    log_mel = codec.log_mel(torch.stack([dataset[0], dataset[1]]))
    trainer.network.eval()
    with torch.no_grad():
        output = trainer.network(log_mel)
    assert torch.equal(codec.network.encode(log_mel), output.quantizer.codes)
    torch.testing.assert_close(codec.network.decode(output.quantizer.codes), output.waveform, rtol=1e-4, atol=1e-5)


def test_every_part_of_the_model_learns(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", "discriminators.start_step=0")
    trainer = Trainer(config, torch.device("cpu"))
    trainer.initialize_codebooks(first_batches(config))
    before = {
        name: p.clone() for name, p in (*trainer.network.named_parameters(), *trainer.adversary.named_parameters())
    }
    losses = [trainer.train_step(torch.stack([open_dataset(config)[n] for n in range(4)])) for _ in range(12)]
    after = dict((*trainer.network.named_parameters(), *trainer.adversary.named_parameters()))
    unchanged = [name for name, p in before.items() if torch.equal(p, after[name])]
    assert unchanged == []
    mels = [float(scalars["mel_1024"]) for scalars in losses]
    assert mels[-1] < mels[0]
    assert {"discriminator", "adversarial", "feature_matching", "commitment"} <= losses[0].keys()


def test_losses_and_codebook_use_are_logged(shards: Path, tmp_path: Path) -> None:
    train(tiny_config(shards, tmp_path / "run"))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {
        "mel_1024", "commitment", "adversarial", "feature_matching", "discriminator", "generator",
        "codebook_usage", "codebook_perplexity_share", "codebook_entropy", "codebook_expired_share", "learning_rate",
    } <= set(events.Tags()["scalars"])  # fmt: skip
    assert [event.step for event in events.Scalars("mel_1024")] == [2, 4, 6, 7]


def test_old_checkpoints_are_removed(shards: Path, tmp_path: Path) -> None:
    train(tiny_config(shards, tmp_path / "run", "keep_checkpoints=2", "checkpoint_interval=1"))
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000006", "step-00000007"]


def test_a_finished_run_is_left_alone(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", steps=2)
    train(config)
    assert train(config).ending == "already finished"


def test_ctrl_c_ends_after_the_step_and_the_same_command_goes_on(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run")
    report = run_training(config, lambda step, scalars: os.kill(os.getpid(), signal.SIGINT))
    assert (report.ending, report.step, report.codec) == ("interrupted", 2, None)
    train(config)
    train(tiny_config(shards, tmp_path / "whole"))
    assert_equal(final_state(tmp_path / "run"), final_state(tmp_path / "whole"))


def test_time_can_be_limited(shards: Path, tmp_path: Path) -> None:
    report = train(tiny_config(shards, tmp_path / "run", "max_minutes=0.0001"))
    assert report.ending == "out of time"
    assert report.step < 7
    assert Codec.from_pretrained(report.codec, device="cpu").codebook_size == 64


def test_another_configuration_does_not_go_on_in_the_same_folder(shards: Path, tmp_path: Path) -> None:
    train(tiny_config(shards, tmp_path / "run", steps=2))
    with pytest.raises(InputError, match=r"another configuration \(different: loss\.adversarial, seed\)"):
        train(tiny_config(shards, tmp_path / "run", "seed=9", "loss.adversarial=2"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="no training run"):
        train(tiny_config(shards, tmp_path / "full"))


def test_a_loss_that_is_no_number_stops_the_run(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(CodectokError, match="Training diverged"):
        train(tiny_config(shards, tmp_path / "run", "generator_optimizer.learning_rate=1e30"))


def test_a_damaged_checkpoint_is_named(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", steps=2)
    train(config)
    (tmp_path / "run" / "checkpoints" / "step-00000002" / "training.pt").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="step-00000002"):
        train(tiny_config(shards, tmp_path / "run", steps=4))


QUANTIZERS = {
    "grouped": ["codec.quantizer.n_groups=2", "codec.quantizer.time_factors=[2]"],
    "simvq": ["codec.quantizer={type: simvq, codebook_size: 64, codebook_dim: 8, time_factors: [2]}"],
    "fsq": ["codec.quantizer={type: fsq, levels: [5, 4], time_factors: [2]}"],
}


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_every_quantizer_trains(quantizer: str, shards: Path, tmp_path: Path) -> None:
    report = train(tiny_config(shards, tmp_path / "run", *QUANTIZERS[quantizer], "data.num_workers=1", steps=3))
    codec = Codec.from_pretrained(report.codec, device="cpu")
    assert len(codec.encode(np.zeros(24_000, np.float32), 24_000)) == 24_000 // 512


def test_residual_codebooks_start_on_what_is_left_over(shards: Path, tmp_path: Path) -> None:
    trainer = Trainer(config := tiny_config(shards, tmp_path / "run"), torch.device("cpu"))
    trainer.initialize_codebooks(first_batches(config))
    for codebook in trainer.network.quantizer.codebooks:
        assert (codebook.abs().amax(dim=1) > 0).float().mean() > 0.7
    assert trainer.network.training


def test_a_run_that_never_began_stands_in_nobodys_way(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shards\.json"):
        train(tiny_config(tmp_path / "typo", tmp_path / "run"))
    assert train(tiny_config(shards, tmp_path / "run", steps=2)).ending == "finished"


def test_other_data_under_the_same_name_is_noticed_and_moved_data_is_not(shards: Path, tmp_path: Path) -> None:
    train(tiny_config(shards, tmp_path / "run", steps=2))
    moved = shutil.copytree(shards, tmp_path / "moved")
    assert train(tiny_config(moved, tmp_path / "run", steps=3)).step == 3
    manifest = moved / "shards.json"
    manifest.write_text(re.sub(r'"sha256": "..', '"sha256": "00', manifest.read_text()))
    with pytest.raises(InputError, match="not those that the run has started with"):
        train(tiny_config(moved, tmp_path / "run", steps=4))


def test_a_codec_that_was_half_written_is_written_again(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", steps=2)
    report = train(config)
    (report.codec / "config.json").unlink()
    assert train(config).ending == "finished"
    assert Codec.from_pretrained(report.codec, device="cpu").header.origin == "trained for 2 steps"


def test_damaged_samples_are_left_out_and_counted(shards: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(shards, tmp_path / "damaged")
    data = open_dataset(tiny_config(damaged, tmp_path / "run"))
    for address in {data.stream.address(position) for position in range(4, 9)}:  # a whole batch, and one of the next
        with (damaged / address.part.name).open("r+b") as file:
            file.seek(address.part.offset)
            file.write(b"damaged")
    logged: dict[int, float] = {}
    report = run_training(
        tiny_config(damaged, tmp_path / "run"),
        lambda step, scalars: logged.update({step: scalars["unreadable_samples"]}),
    )
    assert (report.ending, report.step) == ("finished", 7)
    assert logged[7] >= 5
    assert final_state(tmp_path / "run")["position"] == 7 * 4


def kill_a_reader(before: set[multiprocessing.process.BaseProcess]) -> None:
    (reader,) = (child for child in multiprocessing.active_children() if child not in before)
    reader.kill()


def test_a_reading_process_that_dies_is_named_and_the_run_goes_on_afterwards(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", "data.num_workers=1")
    before = set(multiprocessing.active_children())

    def kill(step: int, _: dict[str, float]) -> None:
        if step == 4:
            kill_a_reader(before)

    with pytest.raises(CodectokError, match=r"A process that reads training data died \(.+\); the same"):
        run_training(config, kill)
    assert train(config).step == 7
    train(tiny_config(shards, tmp_path / "whole"))
    assert_equal(final_state(tmp_path / "run"), final_state(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("owner", "name", "run"),
    [
        (Trainer, "autocast", train),  # the start of the codebooks
        (Trainer, "autocast", rehearse),
        (Trainer, "train_step", rehearse),
        (torch, "save", train),
    ],
)
def test_the_death_of_a_reading_process_is_told_as_such_wherever_it_comes(
    owner: Any,
    name: str,
    run: Callable[[TrainConfig], Any],
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = set(multiprocessing.active_children())
    happens = getattr(owner, name)

    def die(*arguments: Any) -> Any:
        kill_a_reader(before)
        time.sleep(1)  # torch breaks into what the program is doing
        return happens(*arguments)

    monkeypatch.setattr(owner, name, die)
    with pytest.raises(PassingError, match=r"A process that reads training data died \(DataLoader worker"):
        run(tiny_config(shards, tmp_path / "run", "data.num_workers=1"))


def test_a_connection_that_breaks_elsewhere_is_not_blamed_on_reading(shards: Path, tmp_path: Path) -> None:
    def hear(step: int, _: dict[str, float]) -> None:
        raise BrokenPipeError("whoever reads the output has gone")

    with pytest.raises(BrokenPipeError):
        run_training(tiny_config(shards, tmp_path / "run", "data.num_workers=1"), hear)


def test_a_stage_can_be_added_to_a_run_but_not_put_before_what_it_heard(shards: Path, tmp_path: Path) -> None:
    def staged(steps: int) -> str:
        return f"data.stages=[{{steps: {steps}, sources: [{{shards: {shards}}}]}}, {{sources: [{{shards: {shards}}}]}}]"

    train(tiny_config(shards, tmp_path / "run", steps=4))
    with pytest.raises(InputError, match="not those that the run has started with"):
        train(tiny_config(shards, tmp_path / "run", "data.shards=null", staged(3), steps=6))
    assert train(tiny_config(shards, tmp_path / "run", "data.shards=null", staged(4), steps=6)).step == 6
