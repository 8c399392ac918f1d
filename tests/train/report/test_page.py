"""The page of a training run, from its files."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.tensorboard import SummaryWriter
from typer.testing import CliRunner

from codectok.cli.main import app
from codectok.errors import InputError
from codectok.train import train
from codectok.train.report import events as events_module
from codectok.train.report.charts import charts_by_section, value_rows
from codectok.train.report.events import read_events
from codectok.train.report.page import run_page
from codectok.train.report.status import read_training_status
from codectok.train.run.metrics_log import TENSORBOARD_FOLDER
from codectok.train.run.output import config_text
from tests.train.conftest import tiny_config


@pytest.fixture(scope="module")
def run(shards: Path, held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run."""
    folder = tmp_path_factory.mktemp("report") / "run"
    validation = [f"validation.shards={held_out}", "validation.interval=2", "validation.clips=1", "validation.listen=1"]
    train(tiny_config(shards, folder, *validation, "checkpoint_interval=2", steps=4))
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "copy")


def _write(folder: Path, values: dict[int, float], purge_step: int | None = None, tag: str = "generator") -> None:
    """Write an event file as a run does."""
    writer = SummaryWriter(str(folder), purge_step=purge_step, filename_suffix=f".{len(list(folder.glob('*')))}")
    for step, value in values.items():
        writer.add_scalar(tag, value, step)
        writer.add_audio("validation/0/reconstruction", torch.full((1, 100), 0.1), step, 1000)
    writer.close()


def _headings(page: str) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", page)


def test_report_of_a_finished_run_shows_everything(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "pages" / "page.html"
    result = CliRunner().invoke(app, ["report", str(run), "--out", str(out)])
    assert result.exit_code == 0, result.output
    page = out.read_text()
    assert _headings(page) == [
        "Run", "Codec", "Losses", "Validation", "Use of the codes", "Learning rate and speed", "Validation clips",
        "Values", "Configuration",
    ]  # fmt: skip
    for text in (
        "step 4 of 4 (100.0%)",
        "2 of 64 codes (grvq)",
        "(mel) at step",
        "codebook_size: 64",
        "2 kept, of the steps 2, 4",
    ):
        assert text in page, text
    assert page.count("<audio") == page.count("<img") == 3  # the original, and steps 2 and 4
    assert page.count("<b>step 2</b>") == page.count("<b>step 4</b>") == 1
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert page == run_page(run)


def test_report_is_written_to_the_run_and_replaced(copy: Path) -> None:
    for _ in range(2):
        assert CliRunner().invoke(app, ["report", str(copy)]).exit_code == 0
    assert (copy / "report.html").read_text() == run_page(copy)


def test_run_that_was_killed_while_it_wrote_has_a_report(copy: Path) -> None:
    shutil.rmtree(copy / "codec")
    shutil.rmtree(copy / "checkpoints")
    last = max((copy / TENSORBOARD_FOLDER).iterdir())
    last.write_bytes(last.read_bytes()[:-100])
    page = run_page(copy)
    assert "not written yet" in page
    assert "damaged" not in page
    assert "Validation clips" in page


def test_run_that_has_logged_nothing_has_a_report(copy: Path) -> None:
    shutil.rmtree(copy / TENSORBOARD_FOLDER)
    page = run_page(copy)
    assert "nothing has been logged yet" in page
    assert _headings(page) == ["Run", "Codec", "Configuration"]


def test_configuration_of_another_version_is_shown_as_text(copy: Path) -> None:
    text = (copy / "config.yaml").read_text() + "unheard_of: 3\n"
    (copy / "config.yaml").write_text(text)
    page = run_page(copy)
    assert "this version cannot read it" in page
    assert "unheard_of: 3" in page
    assert "step 4</td>" in page


def test_folder_that_is_not_a_run_is_one_sentence(run: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("learning_rate: 1\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no")
    cases: list[tuple[Path | str, str]] = [
        (tmp_path / "missing", "no folder"), (tmp_path / "file", "no folder"), (tmp_path / "empty", r"config\.yaml"),
        (tmp_path / "other", "not a training run"), (run / "checkpoints" / "step-00000004", "checkpoint"),
        (run / "codec", "not a training run"), (run.parent, "runs in it: run"), ("s3://bucket/run", "local"),
    ]  # fmt: skip
    for folder, message in cases:
        with pytest.raises(InputError, match=message):
            run_page(folder)
    result = CliRunner().invoke(app, ["report", str(tmp_path / "empty")])
    assert result.exit_code == 2
    assert not (tmp_path / "empty" / "report.html").exists()


@pytest.mark.parametrize("out", ["page.txt", "folder.html"])
def test_page_needs_the_name_of_an_html_file(run: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "folder.html").mkdir()
    assert CliRunner().invoke(app, ["report", str(run), "--out", str(tmp_path / out)]).exit_code == 2


def test_entries_that_a_resumed_run_writes_again_count_once(tmp_path: Path) -> None:
    _write(tmp_path, {step: float(step) for step in range(1, 11)}, purge_step=1)
    _write(tmp_path, {step: -float(step) for step in range(6, 9)}, purge_step=6)
    found = read_events(tmp_path)
    assert [value for _, value in found.scalars["generator"]] == [1, 2, 3, 4, 5, -6, -7, -8]
    clips = found.audio["validation/0/reconstruction"]
    assert [clip.step for clip in clips] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert all(clip.load().startswith(b"RIFF") for clip in clips)
    assert found.last_step == 8


def test_files_are_read_up_to_any_cut(tmp_path: Path) -> None:
    _write(tmp_path, {1: 1.0, 2: 2.0})
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    counts = set()
    for length in range(0, len(data) + 1, 7):
        path.write_bytes(data[:length])
        found = read_events(tmp_path)
        counts.add(len(found.scalars.get("generator", [])))
        assert found.damaged == []
    assert counts == {0, 1, 2}


def test_damaged_event_ends_its_file_and_is_named(copy: Path) -> None:
    folder = copy / TENSORBOARD_FOLDER
    path = min(folder.iterdir())
    data = bytearray(path.read_bytes())
    before, start = len(read_events(folder).scalars["generator"]), data.rindex(b"generator")
    # In the event, and in the header of its record, 9 + 4 bytes earlier or more.
    for first, last in ((start - 6, start + 9), (start - 40, start - 20)):
        damaged = bytearray(data)
        damaged[first:last] = b"\xff" * (last - first)
        path.write_bytes(damaged)
        found = read_events(folder)
        assert found.damaged == [path]
        assert len(found.scalars["generator"]) == before - 1
    assert path.name in run_page(copy)


def test_audio_that_cannot_be_read_is_left_out(copy: Path) -> None:
    for path in (copy / TENSORBOARD_FOLDER).iterdir():
        path.write_bytes(path.read_bytes().replace(b"RIFF", b"RIFX").replace(b"WAVE", b"none"))
    assert "Validation clips" not in run_page(copy)


def test_long_series_are_thinned_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "MOST_POINTS", 200)
    monkeypatch.setattr(events_module, "THINNED_POINTS", 100)
    writer = SummaryWriter(str(tmp_path))
    for step in range(1000):
        writer.add_scalar("generator", 99.0 if step == 123 else math.sin(step), step)
    writer.close()
    points = read_events(tmp_path).scalars["generator"]
    assert len(points) <= 201
    assert (123.0, 99.0) in points
    assert [points[0][0], points[-1][0]] == [0, 999]


def test_every_metric_has_a_chart() -> None:
    points = [(1.0, 2.0), (2.0, 3.0)]
    names = ["mel_1024", "mel_512", "generator", "diversity", "codebook_usage", "validation/codebook_usage",
             "validation/new", "learning_rate", "validation/mel"]  # fmt: skip
    sections = dict(charts_by_section({**dict.fromkeys(names, points), "empty": []}))
    assert list(sections) == ["Losses", "Validation", "Use of the codes", "Learning rate and speed", "Other metrics"]
    assert sum(len(chart.series) for charts in sections.values() for chart in charts) == len(names)
    assert [list(chart.series) for chart in sections["Losses"]] == [
        ["generator"],
        ["mel_512", "mel_1024"],
        ["diversity"],
    ]
    assert [list(chart.series) for chart in sections["Use of the codes"]] == [["in training", "at validation"]]


def test_values_that_are_not_finite_are_shown() -> None:
    rows = value_rows({"a": [(1, math.nan), (2, 3.0), (3, math.inf)], "b": [(7, math.nan)]})
    assert rows == [("a", "nan", "3.00", "3.00", "inf", "3"), ("b", "nan", "none", "none", "nan", "7")]


def test_fresh_run_folder_is_enough(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(config_text(config))
    assert "nothing has been logged yet" in run_page(tmp_path / "run")
    _write(tmp_path / "run" / TENSORBOARD_FOLDER, {1: float(np.float32(0.5))})
    assert "step 1 of 7 (14.3%)" in run_page(tmp_path / "run")


def test_status_of_a_real_run_is_finished(run: Path, copy: Path) -> None:
    status = read_training_status(run)
    assert (status.finished, status.step, status.steps, status.seconds_left) == (True, 4, 4, 0)
    assert {"mel error", "generator loss", "codes used"} <= set(status.losses)
    shutil.rmtree(copy / "codec")
    assert not read_training_status(copy).finished
