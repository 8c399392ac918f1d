"""Runs resume exactly, end with a codec, and report errors."""

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
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from codectok import CheckpointError, CodectokError, InputError
from codectok.errors import PassingError
from codectok.train import TrainConfig, Trainer, dry_run, train
from codectok.train.run.checkpoint import latest_checkpoint
from codectok.train.run.preparation import open_segments
from tests.train.conftest import assert_equal, codec_of, final_state, first_batches, tiny_config


def test_resumed_run_equals_uninterrupted_run(shards: Path, tmp_path: Path) -> None:
    whole = train(tiny_config(shards, tmp_path / "whole"))
    train(tiny_config(shards, tmp_path / "parts", steps=4))
    checkpoint = latest_checkpoint(tmp_path / "parts" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.name == "step-00000004"
    parts = train(tiny_config(shards, tmp_path / "parts"))
    assert (whole.ending, parts.ending, parts.step) == ("finished", "finished", 7)
    assert_equal(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
    codecs = [codec_of(report) for report in (whole, parts)]
    assert codecs[0].fingerprint == codecs[1].fingerprint
    assert codecs[0].header.origin == "trained for 7 steps"


def test_exported_codec_is_the_trained_network(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run")
    trainer = Trainer(config, torch.device("cpu"))
    segments = open_segments(config).read([0, 1])
    trainer.initialize_codebooks(first_batches(config))
    for _, batch in zip(range(3), first_batches(config), strict=False):
        trainer.train_step(batch)
    codec = trainer.export()
    log_mel = codec.log_mel(torch.stack([torch.from_numpy(segment.waveform) for segment in segments]))
    trainer.network.eval()
    with torch.no_grad():
        output = trainer.network(log_mel)
    assert torch.equal(codec.network.encode(log_mel), output.quantizer.codes)
    torch.testing.assert_close(codec.network.decode(output.quantizer.codes), output.waveform, rtol=1e-4, atol=1e-5)


def test_every_parameter_is_trained(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", "discriminators.start_step=0")
    trainer = Trainer(config, torch.device("cpu"))
    trainer.initialize_codebooks(first_batches(config))
    before = {
        name: p.clone() for name, p in (*trainer.network.named_parameters(), *trainer.adversary.named_parameters())
    }
    segments = open_segments(config).read(range(4))
    batch = torch.stack([torch.from_numpy(segment.waveform) for segment in segments])
    losses = [trainer.train_step(batch) for _ in range(12)]
    after = dict((*trainer.network.named_parameters(), *trainer.adversary.named_parameters()))
    unchanged = [name for name, p in before.items() if torch.equal(p, after[name])]
    assert unchanged == []
    mels = [float(scalars["mel_1024"]) for scalars in losses]
    assert mels[-1] < mels[0]
    assert {"discriminator", "adversarial", "feature_matching", "commitment"} <= losses[0].keys()


def test_losses_and_codebook_metrics_are_logged(shards: Path, tmp_path: Path) -> None:
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


def test_checkpoints_that_a_killed_run_was_removing_are_removed(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", "keep_checkpoints=1", "checkpoint_interval=3")
    train(config)
    checkpoints = tmp_path / "run" / "checkpoints"
    for name in ("step-00000003", ".step-00000006.1a2b3c4d.tmp"):
        shutil.copytree(checkpoints / "step-00000007", checkpoints / name)
    (checkpoints / ".step-00000006.1a2b3c4d.tmp" / "training.pt").unlink()
    shutil.rmtree(tmp_path / "run" / "codec")
    assert train(config).ending == "finished"
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000007"]


def test_finished_run_is_not_repeated(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", steps=2)
    train(config)
    assert train(config).ending == "already finished"


def test_ctrl_c_stops_after_the_step(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run")
    report = train(config, lambda step, metrics: os.kill(os.getpid(), signal.SIGINT))
    assert (report.ending, report.step, report.codec) == ("interrupted", 2, None)
    train(config)
    train(tiny_config(shards, tmp_path / "whole"))
    assert_equal(final_state(tmp_path / "run"), final_state(tmp_path / "whole"))


def test_max_minutes_limits_the_time(shards: Path, tmp_path: Path) -> None:
    report = train(tiny_config(shards, tmp_path / "run", "max_minutes=0.0001"))
    assert report.ending == "out of time"
    assert report.step < 7
    assert codec_of(report).codebook_size == 64


def test_changed_configuration_is_refused(shards: Path, tmp_path: Path) -> None:
    train(tiny_config(shards, tmp_path / "run", steps=2))
    with pytest.raises(InputError, match=r"another configuration \(different: loss\.adversarial, seed\)"):
        train(tiny_config(shards, tmp_path / "run", "seed=9", "loss.adversarial=2"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="no training run"):
        train(tiny_config(shards, tmp_path / "full"))


def test_run_older_than_a_key_resumes(shards: Path, tmp_path: Path) -> None:
    train(tiny_config(shards, tmp_path / "run", steps=2))
    path = tmp_path / "run" / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    del stored["generator_optimizer"]["constant_steps"], stored["data"]["augmentation"]
    path.write_text(yaml.safe_dump(stored))
    assert train(tiny_config(shards, tmp_path / "run", steps=3)).step == 3


def test_non_finite_loss_stops_the_run(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(CodectokError, match="Training diverged"):
        train(tiny_config(shards, tmp_path / "run", "generator_optimizer.learning_rate=1e30"))


def test_workers_end_with_an_error_of_a_step(shards: Path, tmp_path: Path) -> None:
    """Workers end although the traceback still refers to the iterator."""
    options = ["generator_optimizer.learning_rate=1e30", "data.num_workers=2"]
    others = multiprocessing.active_children()
    with pytest.raises(CodectokError, match="Training diverged") as found:
        train(tiny_config(shards, tmp_path / "run", *options))
    assert found.tb is not None
    assert set(multiprocessing.active_children()) <= set(others)


def test_damaged_checkpoint_is_named(shards: Path, tmp_path: Path) -> None:
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
    codec = codec_of(report)
    assert len(codec.encode(np.zeros(24_000, np.float32), 24_000)) == 24_000 // 512


def test_residual_codebooks_are_initialized_on_residuals(shards: Path, tmp_path: Path) -> None:
    trainer = Trainer(config := tiny_config(shards, tmp_path / "run"), torch.device("cpu"))
    trainer.initialize_codebooks(first_batches(config))
    for codebook in trainer.network.quantizer.codebooks:
        assert (codebook.abs().amax(dim=1) > 0).float().mean() > 0.7
    assert trainer.network.training


def test_failed_start_does_not_claim_the_output(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shards\.json"):
        train(tiny_config(tmp_path / "typo", tmp_path / "run"))
    assert train(tiny_config(shards, tmp_path / "run", steps=2)).ending == "finished"


def test_changed_shards_are_refused_and_moved_shards_accepted(shards: Path, tmp_path: Path) -> None:
    train(tiny_config(shards, tmp_path / "run", steps=2))
    moved = shutil.copytree(shards, tmp_path / "moved")
    assert train(tiny_config(moved, tmp_path / "run", steps=3)).step == 3
    manifest = moved / "shards.json"
    manifest.write_text(re.sub(r'"sha256": "..', '"sha256": "00', manifest.read_text()))
    with pytest.raises(InputError, match="shards differ"):
        train(tiny_config(moved, tmp_path / "run", steps=4))


def test_half_written_codec_is_written_again(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", steps=2)
    report = train(config)
    assert report.codec is not None
    (report.codec / "config.json").unlink()
    assert train(config).ending == "finished"
    assert codec_of(report).header.origin == "trained for 2 steps"


def test_damaged_samples_are_skipped_and_counted(shards: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(shards, tmp_path / "damaged")
    data = open_segments(tiny_config(damaged, tmp_path / "run"))
    for address in {data.stream.address(position) for position in range(4, 9)}:  # a batch and one sample more
        with (damaged / address.byte_range.name).open("r+b") as file:
            file.seek(address.byte_range.offset)
            file.write(b"damaged")
    logged: dict[int, float] = {}
    report = train(
        tiny_config(damaged, tmp_path / "run"),
        lambda step, metrics: logged.update({step: metrics["unreadable_samples"]}),
    )
    assert (report.ending, report.step) == ("finished", 7)
    assert logged[7] >= 5
    assert final_state(tmp_path / "run")["position"] == 7 * 4


def kill_worker(before: set[multiprocessing.process.BaseProcess]) -> None:
    (worker,) = (child for child in multiprocessing.active_children() if child not in before)
    worker.kill()


def test_run_resumes_after_a_worker_death(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", "data.num_workers=1")
    before = set(multiprocessing.active_children())

    def kill(step: int, _: dict[str, float]) -> None:
        if step == 4:
            kill_worker(before)

    with pytest.raises(CodectokError, match=r"reads training data died \(.+\)"):
        train(config, kill)
    assert train(config).step == 7
    train(tiny_config(shards, tmp_path / "whole"))
    assert_equal(final_state(tmp_path / "run"), final_state(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("owner", "name", "run"),
    [
        (Trainer, "autocast", train),  # while the codebooks are initialized
        (Trainer, "autocast", dry_run),
        (Trainer, "train_step", dry_run),
        (torch, "save", train),
    ],
)
def test_worker_death_is_reported_wherever_it_is_raised(
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
        kill_worker(before)
        time.sleep(1)  # torch interrupts the program
        return happens(*arguments)

    monkeypatch.setattr(owner, name, die)
    with pytest.raises(PassingError, match=r"reads training data died \(DataLoader worker"):
        run(tiny_config(shards, tmp_path / "run", "data.num_workers=1"))


def test_broken_pipe_elsewhere_is_not_a_worker_death(shards: Path, tmp_path: Path) -> None:
    def fail(step: int, _: dict[str, float]) -> None:
        raise BrokenPipeError("the reader of the output is gone")

    with pytest.raises(BrokenPipeError):
        train(tiny_config(shards, tmp_path / "run", "data.num_workers=1"), fail)


def test_stage_can_be_added_after_consumed_samples_only(shards: Path, tmp_path: Path) -> None:
    def staged(steps: int) -> str:
        return f"data.stages=[{{steps: {steps}, sources: [{{shards: {shards}}}]}}, {{sources: [{{shards: {shards}}}]}}]"

    train(tiny_config(shards, tmp_path / "run", steps=4))
    with pytest.raises(InputError, match="shards differ"):
        train(tiny_config(shards, tmp_path / "run", "data.shards=null", staged(3), steps=6))
    assert train(tiny_config(shards, tmp_path / "run", "data.shards=null", staged(4), steps=6)).step == 6
