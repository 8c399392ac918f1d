"""Deduplication by samples across files of any format."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from codectok import CodectokError
from codectok.pipelines.engine import run as run_module
from codectok.pipelines.engine.job import RunUnit, WorkerContext
from codectok.pipelines.engine.lock import JobShare
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.output.unit_files import record_name
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.shard.job import ShardJob
from codectok.storage import LocalStorage
from tests.helpers.audio import tone
from tests.helpers.jobs import LOCAL, digests, rejects, run, shard_job
from tests.helpers.tars import all_samples


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    (root / "more").mkdir(parents=True)
    for number in range(4):
        soundfile.write(root / f"{number}.wav", tone(6, 16_000, seed=number), 16_000, subtype="PCM_16")
    data, rate = soundfile.read(root / "1.wav", dtype="int16")
    soundfile.write(root / "more" / "1.flac", data, rate)
    shutil.copy(root / "2.wav", root / "more" / "another name.wav")
    shutil.copy(root / "2.wav", root / "more" / "and another.wav")
    (root / "broken.wav").write_text("text")
    shutil.copy(root / "broken.wav", root / "broken too.wav")
    return root


def job(**options: object):
    return shard_job(deduplicate=True, **options)


def test_first_duplicate_is_kept(copies: Path, tmp_path: Path) -> None:
    report = run(job(), copies, tmp_path / "out")
    assert {s.source for s, _ in all_samples(tmp_path / "out")} == {"0.wav", "1.wav", "2.wav", "3.wav"}
    rows = [row for row in rejects(tmp_path / "out") if row["reason"] == "duplicate"]
    assert {row["source"]: row["message"] for row in rows} == {
        "more/1.flac": "It holds the same samples as in/1.wav.",
        "more/another name.wav": "It holds the same samples as in/2.wav.",
        "more/and another.wav": "It holds the same samples as in/2.wav.",
    }
    assert {row["duration"] for row in rows} == {6.0}
    total = report.summary.total
    assert total.seconds + sum(total.reject_seconds.values()) == pytest.approx(total.input_seconds)
    assert total.rejects["unreadable"] == 2


@pytest.mark.usefixtures("ray_session")
def test_output_is_equal_for_workers_stops_and_shares(copies: Path, tmp_path: Path) -> None:
    run(job(), copies, tmp_path / "clean")
    run(job(), copies, tmp_path / "ray", RunOptions(engine="ray", workers=2, max_rejects=1.0))
    run(job(), copies, tmp_path / "stopped", replace(LOCAL, limit=1))
    run(job(), copies, tmp_path / "stopped")
    with pytest.raises(CodectokError, match="first pass is not complete"):
        run(job(), copies, tmp_path / "parts", replace(LOCAL, part=JobShare(1, 2)))
    for index in (2, 1):
        run(job(), copies, tmp_path / "parts", replace(LOCAL, part=JobShare(index, 2)))
    clean = digests(tmp_path / "clean")
    for name in ("ray", "stopped", "parts"):
        assert digests(tmp_path / name) == clean, name
    assert run(job(), copies, tmp_path / "ray").new_units == 0


def test_extend_keeps_earlier_recordings(copies: Path, tmp_path: Path) -> None:
    run(job(), copies, tmp_path / "out")
    before = {s.source for s, _ in all_samples(tmp_path / "out")}
    shutil.copy(copies / "3.wav", copies / "0 earlier by name.wav")
    soundfile.write(copies / "new.wav", tone(5, 16_000, seed=9), 16_000)
    run(job(), copies, tmp_path / "out", replace(LOCAL, extend=True))
    assert {s.source for s, _ in all_samples(tmp_path / "out")} == before | {"new.wav"}


def write_rows(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps({"path": "0.wav"} | row) + "\n" for row in rows))
    return str(path)


def test_only_spans_with_equal_samples_are_duplicates(copies: Path, tmp_path: Path) -> None:
    first = write_rows(copies / "first.jsonl", [{"start": 0.0, "end": 2.5}, {"start": 3.0, "end": 6.0, "text": "a"}])
    rows: list[dict[str, object]] = [
        {"start": 0.0, "end": 3.0},
        {"start": 2.5, "end": 5.0},
        {"start": 3.0, "end": 6.0, "text": "b"},
        {"path": "1.wav", "text": "c"},
        {"path": "more/1.flac"},
    ]
    second = write_rows(copies / "second.jsonl", rows)
    report = run_job(job(), [first, second], tmp_path / "out", LOCAL)
    kept = sorted((s.dataset, s.source, s.start, s.duration) for s, _ in all_samples(tmp_path / "out"))
    assert kept == [
        ("first", "0.wav", 0.0, 2.5),
        ("first", "0.wav", 3.0, 3.0),
        ("second", "0.wav", 0.0, 3.0),
        ("second", "0.wav", 2.5, 2.5),
        ("second", "1.wav", 0.0, 6.0),
    ]
    found = [(row["source"], row["start"], row["duration"], row["message"]) for row in rejects(tmp_path / "out")]
    assert found == [
        ("0.wav", 3.0, 3.0, "It holds the same samples as first/0.wav from 3 s on."),
        ("more/1.flac", 0.0, 6.0, "It holds the same samples as second/1.wav."),
    ]
    assert report.summary.total.inputs == 7


def test_rejected_span_makes_no_duplicate(copies: Path, tmp_path: Path) -> None:
    rows = [{"start": 2.0, "end": 9.0, "text": "words beyond the end"}, {"start": 2.0, "end": 6.0, "text": "right"}]
    run(job(), write_rows(copies / "list.jsonl", rows), tmp_path / "out")
    assert [sample.text for sample, _ in all_samples(tmp_path / "out")] == ["right"]


def test_duplicate_with_name_not_utf8(copies: Path, tmp_path: Path) -> None:
    try:
        shutil.copy(copies / "3.wav", copies / os.fsdecode(b"caf\xe9.wav"))
    except OSError:
        pytest.skip("this file system accepts UTF-8 names only")
    run(job(), copies, tmp_path / "out")
    assert "caf\\xe9.wav" in {row["source"] for row in rejects(tmp_path / "out") if row["reason"] == "duplicate"}


@pytest.fixture
def absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Two equal recordings, each a unit of `out`, of which the first one was not there; a call puts it back."""
    root, away = tmp_path / "two", tmp_path / "away.wav"
    root.mkdir()
    for name in ("a.wav", "b.wav"):
        soundfile.write(root / name, tone(6, 16_000), 16_000, subtype="PCM_16")
    for output in ("out", "parts"):
        with monkeypatch.context() as patch:
            patch.setattr(run_module, "_run_first_pass", stopped)
            with pytest.raises(CodectokError, match="stopped"):
                run(two_units(), root, tmp_path / output)
    run(two_units(), root, tmp_path / "clean")
    (root / "a.wav").rename(away)
    return lambda: shutil.move(away, root / "a.wav")


def two_units():
    return job(shard_seconds=0.1)


def stopped(*_: object) -> None:
    raise CodectokError("It is stopped.")


def test_decision_that_changes_survives_a_kill(
    absent: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(two_units(), tmp_path / "two", tmp_path / "out")
    assert [sample.source for sample, _ in all_samples(tmp_path / "out")] == ["b.wav"]
    absent()

    remove_file = LocalStorage.remove_file

    def killed(storage: LocalStorage, name: str) -> None:
        if storage.path == tmp_path / "out" and name == record_name(1):
            stopped()
        remove_file(storage, name)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "remove_file", killed)
        with pytest.raises(CodectokError, match="stopped"):
            run(two_units(), tmp_path / "two", tmp_path / "out")
    run(two_units(), tmp_path / "two", tmp_path / "out")
    assert digests(tmp_path / "out") == digests(tmp_path / "clean")


def test_share_stops_when_another_one_changes_the_decision(
    absent: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (replace(LOCAL, part=JobShare(number, 2)) for number in (1, 2))
    for part in (first, second):
        with monkeypatch.context() as patch, suppress(CodectokError):
            patch.setattr(ShardJob, "start", stopped)
            run(two_units(), tmp_path / "two", tmp_path / "parts", part)
    start = ShardJob.start

    def interrupted_start(self: ShardJob, context: WorkerContext) -> RunUnit:
        """Run the first share before the unit of the second one is made."""
        run_unit = start(self, context)

        def make(unit: Unit, output: UnitOutput) -> None:
            patch.undo()
            absent()
            run(two_units(), tmp_path / "two", tmp_path / "parts", first)
            run_unit(unit, output)

        return make

    with monkeypatch.context() as patch:
        patch.setattr(ShardJob, "start", interrupted_start)
        with pytest.raises(CodectokError, match="changed what the first pass decides; run the same command again"):
            run(two_units(), tmp_path / "two", tmp_path / "parts", second)
    run(two_units(), tmp_path / "two", tmp_path / "parts", second)
    assert digests(tmp_path / "parts") == digests(tmp_path / "clean")


def test_first_pass_reads_the_plan_of_the_job(copies: Path, tmp_path: Path) -> None:
    """Also if a killed `--extend` had left tables of another plan in the output."""
    output = tmp_path / "out"
    run(job(), copies / "more", output)
    shutil.copy(copies / "3.wav", copies / "more" / "3.wav")
    stale = output / "_codectok" / "plan" / "001-units.parquet"
    shutil.copy(stale.with_name("000-units.parquet"), stale)
    run(job(), copies / "more", output)
    shutil.copy(copies / "3.wav", copies / "more" / "4.wav")
    run(job(), copies / "more", output, replace(LOCAL, extend=True))
    first = output / "_codectok" / "first-pass" / "_codectok" / "plan" / "001-units.parquet"
    assert first.read_bytes() == stale.read_bytes()
    assert [row["source"] for row in rejects(output) if "3.wav" in str(row["message"])] == ["4.wav"]
