"""Events and metrics of training runs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from codectok import InputError
from codectok.cli.options import TrainingEngine
from codectok.train import train
from codectok.train.launch.watching import watched
from codectok.train.run.checkpoint import latest_checkpoint
from tests.helpers.command_line import train_command
from tests.helpers.events import events_of, metrics_of, value_of
from tests.train.conftest import tiny_config


def test_log_and_metrics_tell_steps_validation_and_checkpoints(shards: Path, held_out: Path, tmp_path: Path) -> None:
    overrides = ["log_interval=1", "checkpoint_interval=2", f"validation.shards={held_out}", "validation.interval=2"]
    config = tiny_config(shards, tmp_path / "run", *overrides, "validation.clips=2", "validation.listen=0", "steps=3")
    seen: dict[int, dict[str, float]] = {}
    notes: list[str] = []
    with watched(config, str(tmp_path / "log"), notes.append) as events:
        report = train(config, lambda step, metrics: seen.setdefault(step, {}).update(metrics), events=events)
        events.totals = lambda: {"ending": report.ending, "step": report.step}
    log = tmp_path / "log"
    steps = events_of(log, "step_logged")
    assert [line["step"] for line in steps] == [1, 2, 3]
    validated = events_of(log, "validated")
    assert [line["step"] for line in validated] == [2, 3]
    for line in (*steps, *validated):
        assert line["metrics"].items() <= seen[line["step"]].items()
        assert all(name.startswith("validation/") == (line["event"] == "validated") for name in line["metrics"])
    checkpoints = events_of(log, "checkpoint_written")
    assert [line["step"] for line in checkpoints] == [2, 3]
    assert Path(checkpoints[-1]["path"]) == latest_checkpoint(tmp_path / "run" / "checkpoints")
    (started,), (ended,) = events_of(log, "run_started"), events_of(log, "run_ended")
    assert started["options"]["steps"] == 3
    assert (ended["ending"], ended["totals"], notes) == ("finished", {"step": 3}, [])
    metrics = metrics_of(log)
    assert value_of(metrics, "codectok_train_step", verb="train", output=str(tmp_path / "run")) == 3
    assert value_of(metrics, "codectok_train_checkpoint_step") == 3
    for name, value in seen[3].items():
        assert value_of(metrics, "codectok_train_metric", metric=name) == pytest.approx(value)


def test_warnings_and_errors_are_events(shards: Path, tmp_path: Path) -> None:
    """And warnings are shown."""
    config = tiny_config(shards, tmp_path / "run", "steps=2")
    notes: list[str] = []
    with watched(config, str(tmp_path / "log"), notes.append) as events:
        logging.getLogger("codectok.train.run").warning("the shards differ")
        events.totals = lambda: {"ending": "interrupted", "step": 1}
    (note,), (ended,) = events_of(tmp_path / "log", "note"), events_of(tmp_path / "log", "run_ended")
    assert [note["message"]] == notes == ["the shards differ"]
    assert ended["ending"] == "interrupted"
    with pytest.raises(InputError), watched(config, str(tmp_path / "failed"), print):
        raise InputError("The data cannot be used.")
    (ended,) = events_of(tmp_path / "failed", "run_ended")
    assert (ended["ending"], ended["error"]) == ("failed", "The data cannot be used.")


def test_command_takes_a_log_folder(shards: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(tiny_config(shards, tmp_path / "run", "steps=1").model_dump_json())
    train_command(str(config), [], engine=TrainingEngine.LOCAL, log_dir=str(tmp_path / "log"))
    (ended,) = events_of(tmp_path / "log", "run_ended")
    assert (ended["ending"], ended["totals"]) == ("finished", {"step": 1})
    train_command(str(config), [], engine=TrainingEngine.LOCAL, log_dir=str(tmp_path / "again"))
    (ended,) = events_of(tmp_path / "again", "run_ended")
    assert (ended["ending"], ended["totals"]) == ("already finished", {"step": 1})
    with pytest.raises(InputError, match="lies in the output"):
        train_command(str(config), [], engine=TrainingEngine.LOCAL, log_dir=str(tmp_path / "run" / "log"))
