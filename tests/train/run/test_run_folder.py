"""The folder of a run: when it counts as finished, whose it is, and what a failed start leaves behind."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from codectok import Codec, InputError
from codectok.checkpoints.native import read_header
from codectok.errors import CheckpointError, PassingError
from codectok.train import train
from codectok.train.distributed import Ranks
from codectok.train.report.status import read_training_status
from codectok.train.run import lock
from codectok.train.run import run as run_module
from codectok.train.run.output import write_codec
from codectok.train.run.preparation import check_same_checkpoint
from codectok.train.run.validation import Validation
from tests.train.conftest import damage, final_state, tiny_config, write_shards


def origin_of(folder: Path) -> str | None:
    return read_header(folder).origin


def full_disk(*_: Any) -> None:
    raise OSError("No space left on device")


def test_codec_of_fewer_steps_does_not_finish_a_longer_run(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    train(tiny_config(shards, output, steps=2))
    longer = tiny_config(shards, output, steps=4)
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_codec", full_disk)
        with pytest.raises(OSError, match="No space left"):
            train(longer)
    assert origin_of(output / "codec") == "trained for 2 steps"
    assert not read_training_status(output).finished
    assert train(longer).ending == "finished"
    assert origin_of(output / "codec") == "trained for 4 steps"
    assert read_training_status(output).finished
    assert train(longer).ending == "already finished"


def test_stop_at_the_last_step_leaves_the_codec_to_the_next_start(shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    train(tiny_config(shards, output, steps=2))
    stop = threading.Event()
    config = tiny_config(shards, output, "log_interval=3", steps=3)
    assert train(config, on_metrics=lambda *_: stop.set(), stop=stop).ending == "interrupted"
    assert train(config).ending == "finished"
    assert origin_of(output / "codec") == "trained for 3 steps"


def test_best_codec_is_there_whenever_the_run_has_finished(
    shards: Path, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Validation, "run", lambda self, trainer, log: float(trainer.step))
    config = tiny_config(shards, tmp_path / "run", f"validation.shards={held_out}", "validation.interval=2", steps=4)
    written: list[Path] = []

    def killed_after_one(codec: Any, folder: Path) -> None:
        if written:
            full_disk()
        written.append(folder)
        write_codec(codec, folder)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_codec", killed_after_one)
        with pytest.raises(OSError, match="No space left"):
            train(config)
    report = train(config)
    assert (report.ending, report.best) == ("finished", config.output / "codec-best")
    assert origin_of(config.output / "codec") == "trained for 4 steps"
    assert origin_of(config.output / "codec-best") == "trained for 2 steps"


def test_folder_with_a_configuration_of_the_user_is_refused(shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    output.mkdir()
    own = tiny_config(shards, output).model_dump_json() + "  # mine"
    (output / "config.yaml").write_text(own)
    with pytest.raises(InputError, match="holds no training run; choose another output"):
        train(tiny_config(shards, output))
    assert [path.name for path in output.iterdir()] == ["config.yaml"]
    assert (output / "config.yaml").read_text() == own


def test_failed_start_frees_the_folder(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.3)
    config = tiny_config(shards, tmp_path / "run", steps=2)

    def out_of_memory(*_: Any) -> None:
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "Trainer", out_of_memory)
        with pytest.raises(InputError) as kept:  # with its traceback, which holds the frames
            train(config)
    assert train(config).ending == "finished"
    assert kept.value.__traceback__ is not None


class SecondRank(Ranks):
    """A rank that sees a newer checkpoint on the first one."""

    def of_first(self, value: int, device: torch.device) -> int:
        return 1000


def test_ranks_that_see_different_checkpoints_start_again() -> None:
    device = torch.device("cpu")
    check_same_checkpoint(Path("step-00001000"), SecondRank(), device)
    for other in (Path("step-00000900"), None):
        with pytest.raises(PassingError, match="see different checkpoints"):
            check_same_checkpoint(other, SecondRank(), device)


def test_damaged_samples_are_counted_across_a_stop(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "all", [3, 5, 2, 6])
    damage(shards, {f"all-{number}" for number in range(0, 16, 2)})

    def config(output: str, steps: int) -> Any:
        return tiny_config(shards, tmp_path / output, "data.batch_size=3", steps=steps)

    train(config("whole", 5))
    for steps in (2, 5):
        train(config("parts", steps))
    whole, parts = final_state(tmp_path / "whole"), final_state(tmp_path / "parts")
    assert whole["damaged"] == parts["damaged"]
    assert whole["damaged"][0][0] > 3


def test_counts_of_damaged_samples_pass_to_other_numbers_of_ranks(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", steps=2)
    train(config)
    run = run_module.TrainingRun(config, torch.device("cpu"), Ranks(), lambda *_: None)
    run._load_damaged([[3, 2], [4, 0]])
    assert (run._loader.damaged.total, run._loader.damaged.in_a_row) == (7, 0)


def test_damaged_codec_is_written_again(shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    train(tiny_config(shards, output, steps=2))
    (output / "codec" / "config.json").write_text("{")
    assert not read_training_status(output).finished
    assert train(tiny_config(shards, output, steps=3)).ending == "finished"
    assert origin_of(output / "codec") == "trained for 3 steps"


def test_damaged_best_checkpoint_costs_only_the_best_codec(
    shards: Path, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Validation, "run", lambda self, trainer, log: float(trainer.step))
    config = tiny_config(shards, tmp_path / "run", f"validation.shards={held_out}", "validation.interval=2", steps=4)

    def damaged(checkpoint: Path) -> None:
        raise CheckpointError(f"{checkpoint} cannot be read.")

    write_codec(Codec.from_config(config.codec, device="cpu"), config.output / "codec-best")  # of an earlier ending
    (config.output / ".lock").touch()
    (config.output / "config.yaml").touch()
    monkeypatch.setattr(run_module, "load_training_state", damaged)
    report = train(config)
    assert (report.ending, report.best) == ("finished", None)
    assert origin_of(config.output / "codec") == "trained for 4 steps"
    assert "There will be no codec-best" in caplog.text
    assert not (config.output / "codec-best").exists()
