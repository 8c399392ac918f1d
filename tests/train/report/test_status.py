"""`status` and `clean` of training runs, from their files."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from codectok.train.report.status import read_training_status
from codectok.train.run.metrics_log import TENSORBOARD_FOLDER
from codectok.train.run.output import config_text
from tests.helpers.command_line import assert_refused, codectok, one_line
from tests.train.conftest import tiny_config


def write_run(folder: Path, last: int | None, steps: int = 10) -> Path:
    """Write the files of a run that has logged up to the step `last`."""
    (folder / "checkpoints" / "step-00000002").mkdir(parents=True)
    config = tiny_config(folder, folder, f"steps={steps}")
    (folder / "config.yaml").write_text(config_text(config))
    writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER))
    for step in range(2, (last or 0) + 1, 2):
        for name, value in (("generator", 100.0 / step), ("steps_per_second", 2.0)):
            writer.add_scalar(name, value, step)
    writer.close()
    return folder


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_last_step_and_loss_are_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 6)
    before = files_of(run)
    status = read_training_status(run)
    assert (status.finished, status.step, status.steps, status.seconds_left) == (False, 6, 10, 2.0)
    assert status.losses["generator loss"] == pytest.approx(100 / 6)
    assert status.seconds_since_sign is not None and status.seconds_since_sign < 60
    shown = one_line(codectok("status", run).stdout)
    for text in (
        "step │ 6 of 10",
        "generator loss │ 16.67",
        "time left │ about 2.0 s",
        "checkpoints │ 2",
        "unfinished",
    ):
        assert text in shown
    facts = json.loads(codectok("status", run, "--json").stdout)
    assert (facts["verb"], facts["runs"][0]["step"], facts["runs"][0]["finished"]) == ("train", 6, False)
    assert files_of(run) == before


def test_run_without_a_logged_step_has_a_status(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", None)
    assert read_training_status(run).step == 2  # of its checkpoint
    (run / "checkpoints" / "step-00000002").rmdir()
    assert read_training_status(run).step is None
    assert "none was logged yet" in codectok("status", run).stdout


def test_stages_are_shown_one_after_the_other(tmp_path: Path) -> None:
    for name, last in (("1-teacher", 10), ("2-student", 4)):
        write_run(tmp_path / name, last)
    shown = one_line(codectok("status", tmp_path).stdout)
    assert 0 < shown.index("step │ 10 of 10") < shown.index("step │ 4 of 10")


def test_clean_removes_half_written_files_of_a_killed_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 4)
    before = files_of(run)
    half = run / "checkpoints" / ".step-00000004.0a1b2c3d.tmp"
    half.mkdir()
    (half / "training.pt").write_bytes(b"half")
    (run / ".config.yaml.0a1b2c3d.tmp").write_text("half")
    assert "half-written files │ 2 │" in one_line(codectok("clean", run, "--dry-run").stdout)
    assert half.exists()
    assert "2 files removed" in codectok("clean", run, "--yes").stdout
    assert files_of(run) == before
    assert not half.exists()
    assert "nothing" in codectok("clean", run).stdout


def test_configuration_alone_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    for verb in ("status", "clean"):
        assert_refused(codectok(verb, tmp_path), "holds no job")


def test_watching_an_unfinished_run_ends_with_an_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", 6)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    started = time.monotonic()
    result = codectok("status", run, "--watch")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"train {run}: ")
    assert time.monotonic() - started < 10
