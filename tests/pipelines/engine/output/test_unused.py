"""Parts of the input that are not used: in the summary, the report, the statistics and the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

from codectok.sources.unused import Unused, UnusedCounts, UnusedEntry, add_unused, sum_unused
from tests.helpers.audio import tone
from tests.helpers.command_line import codectok, one_line
from tests.helpers.jobs import run, shard_job, tokenize_job


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recording, two notes, a picture, and a file of an unknown kind."""
    corpus = tmp_path / "in"
    corpus.mkdir()
    soundfile.write(corpus / "a.wav", tone(3, 24_000), 24_000)
    for name in ("one.txt", "two.txt", "cover.JPG", "thing.xyz"):
        (corpus / name).write_text("not audio")
    return corpus


def test_ignored_files_are_named_by_suffix_with_an_example(folder: Path, tmp_path: Path) -> None:
    run(shard_job(), folder, tmp_path / "out")
    summary = json.loads((tmp_path / "out/_codectok/summary.json").read_text())
    ignored = summary["total"]["unused"]["ignored_files"]
    assert {suffix: entry["count"] for suffix, entry in ignored.items()} == {".txt": 2, ".jpg": 1, ".xyz": 1}
    assert (ignored[".jpg"]["example"], ignored[".txt"]["example"]) == ("cover.JPG", "one.txt")
    assert summary["total"]["ignored"] == 4
    report = (tmp_path / "out/_codectok/report.html").read_text()
    assert "Not used" in report
    assert "cover.JPG" in report


def test_ignored_files_stand_in_statistics_and_terminal(folder: Path, tmp_path: Path, codec_folder: Path) -> None:
    run(tokenize_job(codec_folder), folder, tmp_path / "tokens")
    statistics = json.loads((tmp_path / "tokens/_codectok/stats.json").read_text())
    assert statistics["unused"]["ignored_files"][".txt"] == {"count": 2, "example": "one.txt"}
    assert codectok("verify", tmp_path / "tokens").exit_code == 0

    shown = codectok("shard", folder, tmp_path / "out", "--engine", "local")
    assert shown.exit_code == 0, shown.output
    assert "not used" in one_line(shown.output)
    assert "thing.xyz" in shown.output


def test_rows_with_labels_are_counted(folder: Path, tmp_path: Path) -> None:
    rows = [{"path": "in/a.wav", "end": 1.4, "text": "one"}, {"path": "in/a.wav", "start": 1.4, "speaker": "ann"}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = run(shard_job(min_seconds=1.0), tmp_path / "m.jsonl", tmp_path / "out")
    total = report.summary.total
    assert (total.rows, total.with_text, total.with_speaker, total.with_language) == (2, 1, 1, 0)


def test_listing_again_replaces_the_ignored_files(folder: Path, tmp_path: Path) -> None:
    """An extension lists the folder again: its ignored files count once."""
    run(shard_job(), folder, tmp_path / "out")
    soundfile.write(folder / "b.wav", tone(3, 24_000, 500), 24_000)
    (folder / "three.txt").write_text("not audio")
    result = codectok("shard", folder, tmp_path / "out", "--engine", "local", "--extend", "--shard-seconds", "15")
    assert result.exit_code == 0, result.output
    total = json.loads((tmp_path / "out/_codectok/summary.json").read_text())["total"]
    assert total["unused"]["ignored_files"][".txt"]["count"] == 3


def test_sums_of_unused_parts_keep_the_first_example() -> None:
    first: UnusedCounts = {}
    add_unused(first, Unused("columns", "gender", example="a.csv"))
    add_unused(first, Unused("columns", "gender", 2, example="b.csv"))
    second: UnusedCounts = {"ignored_files": {".txt": UnusedEntry(count=4, example="x.txt")}}
    assert sum_unused([first, second, first]) == {
        "ignored_files": {".txt": UnusedEntry(count=4, example="x.txt")},
        "columns": {"gender": UnusedEntry(count=6, example="a.csv")},
    }
