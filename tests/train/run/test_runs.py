"""Whole runs: validation, the best checkpoint, stages, divergence, memory."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from codectok import Codec, CodectokError, InputError
from codectok.config import load_mapping
from codectok.train import TrainConfig, Trainer, dry_run, load_stages, train
from codectok.train.report.status import read_training_status
from codectok.train.run import lock
from codectok.train.run import run as run_module
from codectok.train.run import validation as validation_module
from codectok.train.run.checkpoint import (
    checkpoint_name,
    latest_checkpoint,
    load_training_state,
    save_training_state,
)
from codectok.train.run.preparation import open_validation, prepare
from codectok.train.run.validation import Validation
from tests.helpers.command_line import train_command
from tests.train.conftest import TINY, codec_of, tiny_config


@pytest.fixture
def validated(held_out: Path) -> list[str]:
    return [f"validation.shards={held_out}", "validation.interval=2", "validation.clips=3", "validation.listen=1"]


def test_validation_is_logged_with_audio_and_spectrograms(shards: Path, validated: list[str], tmp_path: Path) -> None:
    train(tiny_config(shards, tmp_path / "run", *validated, steps=4))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"validation/mel", "validation/codebook_usage", "validation/codebook_entropy"} <= set(tags["scalars"])
    assert [event.step for event in events.Scalars("validation/mel")] == [2, 4]
    pairs = {f"validation/0/{kind}" for kind in ("original", "reconstruction")}
    assert pairs == set(tags["audio"]) == set(tags["images"])


def test_wandb_gets_audio_and_spectrograms(
    shards: Path, validated: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = [*validated, "wandb_project=codectok-tests"]
    train(tiny_config(shards, tmp_path / "run", *config, steps=2))
    train(tiny_config(shards, tmp_path / "run", *config, steps=4))
    first, second = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert first.name.rpartition("-")[2] == second.name.rpartition("-")[2]  # the same run is continued
    for folder in (first, second):
        media = folder / "files" / "media"
        assert len(list(media.rglob("*.wav"))) == len(list(media.rglob("*.png"))) == 2


def test_refusal_of_wandb_is_one_sentence(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class UsageError(Exception):
        pass

    def init(**_: Any) -> None:
        raise UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Error=UsageError, init=init))
    with pytest.raises(InputError, match=r"\(wandb_project\): No API key configured.*WANDB_MODE=offline"):
        train(tiny_config(shards, tmp_path / "run", "wandb_project=tests"))


def test_installed_speech_measures_are_logged(shards: Path, validated: list[str], tmp_path: Path) -> None:
    pytest.importorskip("pystoi")
    logged: dict[str, float] = {}
    train(tiny_config(shards, tmp_path / "run", *validated, steps=2), lambda step, metrics: logged.update(metrics))
    assert -1 <= logged["validation/stoi"] <= 1


def test_validation_does_not_change_the_weights(shards: Path, validated: list[str], tmp_path: Path) -> None:
    with_it = train(tiny_config(shards, tmp_path / "a", *validated, steps=4))
    without = train(tiny_config(shards, tmp_path / "b", steps=4))
    fingerprints = {codec_of(report).fingerprint for report in (with_it, without)}
    assert len(fingerprints) == 1


def test_validation_clips_are_fixed_and_held_out(shards: Path, held_out: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", f"validation.shards={held_out}", "validation.max_seconds=1")
    first, again = (open_validation(config) for _ in range(2))
    assert first is not None and again is not None
    assert all(np.array_equal(a, b) for a, b in zip(first.clips, again.clips, strict=True))
    assert {len(clip) for clip in first.clips} == {24_000}
    with pytest.raises(InputError, match="none is left"):
        open_validation(tiny_config(shards, tmp_path / "run", f"validation.shards={shards}"))


def test_best_checkpoint_is_kept_and_exported(
    shards: Path, validated: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([3.0, 1.0, 2.0, 4.0])
    monkeypatch.setattr(Validation, "run", lambda *_: next(errors))
    options = [*validated, "keep_checkpoints=1", "checkpoint_interval=1"]
    train(tiny_config(shards, tmp_path / "run", *options, steps=6))
    report = train(tiny_config(shards, tmp_path / "run", *options, steps=8))
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000008"]
    assert report.best == tmp_path / "run" / "codec-best"
    assert Codec.from_pretrained(report.best, device="cpu").header.origin == "trained for 4 steps"
    assert codec_of(report).header.origin == "trained for 8 steps"


def test_diverged_run_resumes_from_last_good_checkpoint(shards: Path, tmp_path: Path) -> None:
    """The learning rate rises to a thousand times a good one; the bounded mel error alone would not show it."""
    rate = "generator_optimizer.learning_rate=0.5"
    options = ["checkpoint_interval=1", "log_interval=1", "generator_optimizer.warmup_steps=40"]
    config = tiny_config(shards, tmp_path / "run", *options, rate, "explosion=100", steps=80)
    with pytest.raises(CodectokError, match=r"Training diverged: .* \(loss_explosion=10\)") as found:
        train(config)
    last = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert last is not None
    assert str(found.value).endswith(f"resume_from={last}.")
    step = load_training_state(last)["step"]
    again = tiny_config(shards, tmp_path / "again", *options, f"resume_from={last}", steps=step + 3)
    report = train(again)
    assert (report.ending, report.step) == ("finished", step + 3)
    state = load_training_state(tmp_path / "again" / "checkpoints" / checkpoint_name(step + 3))
    assert state["optimizer"]["param_groups"][0]["lr"] < 1e-3
    assert state["position"] == 4 * (step + 3)


@pytest.mark.parametrize("start_step", [0, 6])
def test_learning_run_is_not_called_diverged(start_step: int, shards: Path, tmp_path: Path) -> None:
    options = ["log_interval=1", "checkpoint_interval=1", "generator_optimizer.warmup_steps=5"]
    config = tiny_config(shards, tmp_path / "run", *options, f"discriminators.start_step={start_step}", steps=25)
    assert train(config).ending == "finished"


def test_explosion_is_detected_before_the_checkpoint(shards: Path, tmp_path: Path) -> None:
    options = ["checkpoint_interval=1", "log_interval=7", "explosion=1.5", "keep_checkpoints=2"]
    train(tiny_config(shards, tmp_path / "run", *options, steps=7))
    state = load_training_state(tmp_path / "run" / "checkpoints" / "step-00000007")
    assert 0 < state["log"]["lowest_error"] < 100
    # Pretend that the error was far lower before: the next step, the first of a window of seven, is an explosion.
    lowest = state | {"log": state["log"] | {"lowest_error": 1e-3}}
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000007")
    save_training_state(tmp_path / "run" / "checkpoints", 7, lowest, "")
    with pytest.raises(CodectokError, match=r"after 0\.001 at its best .* resume_from=.*step-00000007"):
        train(tiny_config(shards, tmp_path / "run", *options, steps=14))


def test_codec_is_validated_at_the_last_step(
    shards: Path, validated: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([1.0, 2.0, 3.0])
    validated_steps: list[int] = []

    def validate(_: Validation, trainer: Trainer, __: object) -> float:
        validated_steps.append(trainer.step)
        return next(errors)

    monkeypatch.setattr(Validation, "run", validate)
    options = [*validated, "validation.interval=5"]
    assert train(tiny_config(shards, tmp_path / "run", *options, "max_minutes=1e-9", steps=7)).step == 1
    report = train(tiny_config(shards, tmp_path / "run", *options, steps=7))
    assert validated_steps == [1, 5, 7]
    assert report.best is not None
    assert Codec.from_pretrained(report.best, device="cpu").header.origin == "trained for 1 steps"


def test_accumulation_may_change_on_resume(shards: Path, tmp_path: Path) -> None:
    train(tiny_config(shards, tmp_path / "run", steps=2))
    assert train(tiny_config(shards, tmp_path / "run", "accumulation=2", steps=4)).step == 4


def out_of_memory(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("begin", [train, dry_run], ids=["run", "dry-run"])
@pytest.mark.parametrize(
    ("where", "name", "message"),
    [
        (Trainer, "__init__", "discriminators does not fit into memory"),
        (Trainer, "initialize_codebooks", "k-means .* does not fit into memory"),
        (Trainer, "train_step", "A batch of 4 segments in microbatches of 2 does not fit into memory"),
        (validation_module, "_reconstruct", r"does not fit into memory; .*validation\.max_seconds"),
    ],
    ids=["networks", "start", "step", "validation"],
)
def test_out_of_memory_error_says_what_to_do(
    begin: Callable[[TrainConfig], object], where: object, name: str, message: str, shards: Path,
    validated: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(where, name, out_of_memory)
    with pytest.raises(InputError, match=message):
        begin(tiny_config(shards, tmp_path / "run", *validated, "accumulation=2", steps=2))


@pytest.mark.parametrize("begin", [train, dry_run], ids=["run", "dry-run"])
@pytest.mark.parametrize(("module", "name"), [("torch.utils.tensorboard", "tensorboard"), ("wandb", "wandb")])
def test_missing_metrics_writer_is_reported_first(
    begin: Callable[[TrainConfig], object], module: str, name: str, shards: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(Trainer, "__init__", out_of_memory)
    with pytest.raises(InputError, match=f"pip install {name}"):
        begin(tiny_config(shards, tmp_path / "run", "wandb_project=tests"))
    assert not (tmp_path / "run").exists()


def test_student_waits_for_a_teacher_out_of_time(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = [override for override in TINY if not override.startswith("codec.quantizer")]
    overrides = [
        f"data.shards={shards}", f"output={tmp_path / 'runs'}", "precision=float32", "data.num_workers=0", *tiny,
        "codec.quantizer={codebook_size: 32, codebook_dim: 8, n_groups: 1, n_residuals: 1}",
        "discriminators.period.channels=[4,4]", "discriminators.scale.layers=[{channels: 4, kernel_size: 5}]",
        "discriminators.stft.channels=4", "steps=6", "max_minutes=1e-9",
    ]  # fmt: skip
    train_command("dms", overrides, dry_run=False)
    assert "out of time" in capsys.readouterr().out
    assert not (tmp_path / "runs" / "student").exists()


@pytest.mark.parametrize("moment", ["write_codec", "load_training_state"])
def test_stop_at_start_or_end_skips_later_stages(
    moment: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    described = tiny_config(shards, tmp_path, steps=2).model_dump_json(exclude={"output"})
    path = tmp_path / "runs.yaml"
    path.write_text(
        json.dumps({**json.loads(described), "output": f"{tmp_path / 'runs'}", "stages": {"a": {}, "b": {}}})
    )
    (first, second) = load_stages(str(path), [])
    if moment == "load_training_state":
        train(first)  # nothing is left to do
    happens = getattr(run_module, moment)

    def stop(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return happens(*arguments)

    monkeypatch.setattr(run_module, moment, stop)
    with pytest.raises(KeyboardInterrupt):
        train_command(str(path), [], dry_run=False)
    assert f"{second.output} not started. Run the same command to continue." in capsys.readouterr().out
    assert (first.output / "codec").exists() and not second.output.exists()


def test_resume_does_not_need_the_initial_checkpoint(shards: Path, tmp_path: Path) -> None:
    train(tiny_config(shards, tmp_path / "teacher", steps=1))
    options = [f"init_from={tmp_path / 'teacher'}"]
    train(tiny_config(shards, tmp_path / "student", *options, steps=3))
    shutil.rmtree(tmp_path / "teacher")
    assert train(tiny_config(shards, tmp_path / "student", *options, steps=4)).step == 4


def test_validation_errors_on_other_clips_are_not_compared(
    shards: Path, validated: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([1.0, 5.0])
    monkeypatch.setattr(Validation, "run", lambda *_: next(errors))
    train(tiny_config(shards, tmp_path / "run", *validated, steps=2))
    report = train(tiny_config(shards, tmp_path / "run", *validated, "validation.clips=2", steps=4))
    assert report.best is None  # the last one is the best that can be compared


def test_too_short_validation_clips_are_refused(shards: Path, held_out: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"clips for validation are shorter than 0\.0"):
        train(tiny_config(shards, tmp_path / "run", f"validation.shards={held_out}", "validation.max_seconds=0.001"))


def test_dms_trains_teacher_and_student(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = [override for override in TINY if not override.startswith("codec.quantizer")]
    quantizers = {"teacher": "{codebook_size: 32, codebook_dim: 8, n_groups: 1, n_residuals: 2}",
                  "student": "{codebook_size: 64, codebook_dim: 8}"}  # fmt: skip
    overrides = [
        *(f"stages.{stage}.codec.quantizer={quantizer}" for stage, quantizer in quantizers.items()),
        f"data.shards={shards}", f"output={tmp_path / 'runs'}", "precision=float32", "data.num_workers=0", *tiny,
        "discriminators.period.channels=[4,4]", "discriminators.scale.layers=[{channels: 4, kernel_size: 5}]",
        "discriminators.stft.channels=4", "stages.student.loss.distillation=1.0", "steps=3", "stages.student.steps=4",
    ]  # fmt: skip
    teacher, student = load_stages("dms", overrides)
    assert (teacher.output, student.output) == (tmp_path / "runs" / "teacher", tmp_path / "runs" / "student")
    assert (teacher.steps, student.steps, student.init_from) == (3, 4, teacher.output)
    train_command("dms", overrides, dry_run=True)
    assert not (tmp_path / "runs").exists()
    train_command("dms", overrides, dry_run=False)
    assert Codec.from_pretrained(teacher.output / "codec", device="cpu").n_codebooks == 2
    assert Codec.from_pretrained(student.output / "codec", device="cpu").n_codebooks == 1
    train_command("dms", overrides, dry_run=False)
    assert capsys.readouterr().out.count("already finished") == 2


def test_warm_start_copies_encoder_and_decoder(shards: Path, tmp_path: Path) -> None:
    teacher = train(tiny_config(shards, tmp_path / "teacher", steps=3))
    taught = codec_of(teacher).network
    options = [f"init_from={tmp_path / 'teacher'}", "codec.quantizer.n_residuals=1", "loss.distillation=1.0"]
    config = tiny_config(shards, tmp_path / "student", *options)
    trainer = Trainer(config, torch.device("cpu"))
    own = trainer.export().network
    for part in ("encoder", "decoder"):
        for (name, found), expected in zip(
            getattr(own, part).state_dict().items(), getattr(taught, part).state_dict().values(), strict=True
        ):
            torch.testing.assert_close(found, expected, msg=name)
    report = train(config)
    assert codec_of(report).n_codebooks == 1
    with pytest.raises(InputError, match=r"another encoder .*: depths"):
        train(tiny_config(shards, tmp_path / "other", *options, "codec.encoder.depths=[1]"))
    with pytest.raises(InputError, match="no codec to start from"):
        train(tiny_config(shards, tmp_path / "none", f"init_from={tmp_path}"))


def test_output_of_a_running_training_is_refused(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.3)
    config = tiny_config(shards, tmp_path / "run", steps=3)
    states: list[bool | None] = []

    def look(step: int, metrics: dict[str, float]) -> None:
        states.append(read_training_status(config.output).running)
        if len(states) == 1:
            with pytest.raises(CodectokError, match=f"Another training uses {config.output}; wait for its end"):
                train(config.model_copy(update={"steps": 100, "log_interval": 1}))

    train(config, look)
    assert states and all(states)
    assert "waiting at most 0.3 s for its end" in caplog.text
    assert load_mapping(config.output / "config.yaml")["steps"] == 3
    assert read_training_status(config.output).running is False
    assert train(config).ending == "already finished"


def test_run_is_refused_if_another_one_has_written_a_checkpoint_meanwhile(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny_config(shards, tmp_path / "run", steps=2))
    config = tiny_config(shards, tmp_path / "run", steps=6)

    def prepare_and_wait(*arguments: Any) -> Any:
        found = prepare(*arguments)
        monkeypatch.setattr(run_module, "prepare", prepare)
        train(tiny_config(shards, tmp_path / "run", steps=4))
        return found

    monkeypatch.setattr(run_module, "prepare", prepare_and_wait)
    with pytest.raises(CodectokError, match=r"has written to .* meanwhile; run the same command again"):
        train(config)
    assert train(config).step == 6


@pytest.mark.parametrize(
    "quantizer",
    [
        "{type: grvq, codebook_size: 32, codebook_dim: 8}",
        "{type: simvq, codebook_size: 32, codebook_dim: 8}",
        "{type: fsq, levels: [4, 4]}",
    ],
)
def test_codec_is_tuned_with_its_own_codebooks(quantizer: str, shards: Path, tmp_path: Path) -> None:
    tiny = [f"codec.quantizer={quantizer}"]
    before = codec_of(train(tiny_config(shards, tmp_path / "before", *tiny, steps=3)))
    tiny += ["codec.quantizer.ema_decay=0.9"] if "grvq" in quantizer else []
    tuning = tiny_config(shards, tmp_path / "after", f"init_from={tmp_path / 'before'}", *tiny, steps=1)
    trainer = Trainer(tuning, torch.device("cpu"))
    trainer.initialize_codebooks(iter(()))  # needs no batch
    own = trainer.export().network.state_dict()
    for name, expected in before.network.state_dict().items():
        torch.testing.assert_close(own[name], expected, msg=name)
    assert dry_run(tuning).codebook_init is None
    assert codec_of(train(tuning)).fingerprint != before.fingerprint


def test_dry_run_reports_costs_and_writes_nothing(shards: Path, tmp_path: Path) -> None:
    found = dry_run(tiny_config(shards, tmp_path / "run"))
    assert found.codebook_init is not None and found.codebook_init.seconds > 0
    assert found.codebook_init.estimated_bytes is None
    assert found.stages[0].segments > 0 and found.parameters > 0 and found.seconds_per_step > 0
    assert found.peak_bytes > 100_000_000
    assert not (tmp_path / "run").exists()


def test_checkpoint_contains_its_configuration(shards: Path, tmp_path: Path) -> None:
    train(tiny_config(shards, tmp_path / "run", steps=2))
    text = (tmp_path / "run" / "checkpoints" / "step-00000002" / "config.yaml").read_text()
    assert re.search(r"^steps: 2$", text, re.MULTILINE)
