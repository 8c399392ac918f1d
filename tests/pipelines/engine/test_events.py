"""Events and metrics of jobs: log, file of metrics, and runs that end badly."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from socket import gethostname
from typing import Any

import fsspec
import pyarrow as pa
import pytest
import typer.main
from typer.testing import CliRunner

from codectok import CodectokError, InputError
from codectok.cli.main import app
from codectok.monitoring import event_log
from codectok.monitoring.events import NullEvents, UnitRetried, UnitStarted, WorkerDied, WorkerEnded
from codectok.pipelines import NullProgress, RunOptions, TableJob, Unit, UnitOutput, decoded_clips, run_job
from codectok.pipelines.engine.timing import RunTimer
from codectok.storage import RemoteStorage, open_storage
from tests.helpers.events import events_of, metrics_of, value_of
from tests.helpers.jobs import LOCAL, run, shard_job

HERE = gethostname()


class Notes(NullProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


class Kept(NullEvents):
    def __init__(self) -> None:
        self.events: list[Any] = []

    def emit(self, event: Any) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def logged(folder: Path | str, **options: Any) -> RunOptions:
    return replace(LOCAL, log_dir=str(folder), **options)


def test_log_and_metrics_tell_the_totals_of_a_job(corpus: Path, tmp_path: Path) -> None:
    report = run(shard_job(), corpus, tmp_path / "out", logged(tmp_path / "log"))
    total, log = report.summary.total, tmp_path / "log"
    lines = events_of(log)
    (started,), (planned,), (ended,) = (events_of(log, name) for name in ("run_started", "units_planned", "run_ended"))
    assert (lines[0], lines[-1]) == (started, ended)
    assert (started["output"], started["part"], started["process"]) == (str(tmp_path / "out"), "whole", os.getpid())
    assert planned["units"] == planned["to_do"] == report.new_units > 1
    assert planned["job_options"]["shard_seconds"] == 15.0
    finished = events_of(log, "unit_finished")
    assert [line["unit"] for line in finished] == [*range(report.new_units)]
    assert {line["node"] for line in finished} == {HERE}
    assert sum((Counter(line["rejects"]) for line in finished), Counter()) == total.rejects
    assert ended["totals"] == {
        "units_finished": report.new_units,
        "units_failed": 0,
        "audio_seconds": pytest.approx(total.input_seconds),
        "rows": total.rows,
        "rejects": total.rejects,
        "complete": True,
    }
    assert (ended["ending"], ended["error"]) == ("finished", "")
    assert [line["phase"] for line in events_of(log, "phase_started")] == ["plan", "workers", "units", "end"]
    metrics = metrics_of(log)
    assert value_of(metrics, "codectok_audio_seconds_total", node=HERE) == pytest.approx(total.input_seconds)
    assert value_of(metrics, "codectok_rows_total") == total.rows
    assert value_of(metrics, "codectok_unit_seconds_count") == report.new_units
    for reason, count in total.rejects.items():
        assert value_of(metrics, "codectok_rejects_total", reason=reason) == count
    for name in ("units_left", "units_running", "units_waiting", "workers", "run_active", "units_failed_total"):
        assert value_of(metrics, f"codectok_{name}", verb="shard", output=str(tmp_path / "out")) == 0, name
    assert value_of(metrics, "codectok_speed_ratio") > 1


def test_each_run_has_its_log_and_the_metrics_of_the_last_one_remain(corpus: Path, tmp_path: Path) -> None:
    first = run(shard_job(), corpus, tmp_path / "out", logged(tmp_path / "log", limit=1))
    second = run(shard_job(), corpus, tmp_path / "out", logged(tmp_path / "log"))
    logs = sorted((tmp_path / "log").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    ends = [json.loads(path.read_bytes().splitlines()[-1])["totals"] for path in logs]
    assert [(end["units_finished"], end["complete"]) for end in ends] == [(1, False), (second.new_units, True)]
    assert first.new_units == 1
    assert value_of(metrics_of(tmp_path / "log"), "codectok_units_finished_total") == second.new_units


def test_first_pass_has_events_of_its_verb(corpus: Path, tmp_path: Path) -> None:
    run(shard_job(deduplicate=True), corpus, tmp_path / "out", logged(tmp_path / "log"))
    verbs = [line["verb"] for line in events_of(tmp_path / "log", "units_planned")]
    assert len(verbs) == 2
    assert verbs[1] == "shard" != verbs[0]
    metrics = metrics_of(tmp_path / "log")
    assert {dict(labels)["verb"] for labels in metrics["codectok_units_finished_total"]} == {*verbs}
    assert {*metrics["codectok_run_active"].values()} == {0.0}


def flaky(marker: Path, failures: int) -> TableJob:
    def rows(unit: Unit, output: UnitOutput) -> Iterator[Mapping[str, Any]]:
        for clip, samples in decoded_clips(unit, output, 24_000):
            output.keep(clip.dataset, 1.0)
            yield {"n": len(samples)}
        if unit.number == 0:
            tries = len(marker.read_text()) if marker.exists() else 0
            marker.write_text("x" * (tries + 1))
            if tries < failures:
                raise RuntimeError("the disk is tired")

    return TableJob("flaky", rows, pa.schema([("n", pa.int64())]))


def test_retried_and_failed_units_are_events(corpus: Path, tmp_path: Path) -> None:
    run(flaky(tmp_path / "once", 1), corpus, tmp_path / "one", logged(tmp_path / "log"))
    (retried,) = events_of(tmp_path / "log", "unit_retried")
    assert (retried["unit"], retried["node"], retried["reason"]) == (0, HERE, "RuntimeError: the disk is tired")
    attempts = [line["attempt"] for line in events_of(tmp_path / "log", "unit_started") if line["unit"] == 0]
    assert attempts == [1, 2]
    assert value_of(metrics_of(tmp_path / "log"), "codectok_units_retried_total") == 1
    with pytest.raises(CodectokError, match="units failed"):
        run(flaky(tmp_path / "always", 9), corpus, tmp_path / "two", logged(tmp_path / "failed"))
    (failed,) = events_of(tmp_path / "failed", "unit_failed")
    assert (failed["unit"], failed["lasting"]) == (0, False)
    (ended,) = events_of(tmp_path / "failed", "run_ended")
    assert ended["ending"] == "failed"
    assert "units failed" in ended["error"]
    metrics = metrics_of(tmp_path / "failed")
    assert value_of(metrics, "codectok_units_failed_total") == 1
    assert value_of(metrics, "codectok_run_active") == 0


def test_run_that_cannot_be_planned_or_is_interrupted_says_so(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError):
        run(shard_job(), tmp_path / "nothing", tmp_path / "out", logged(tmp_path / "log"))
    (ended,) = events_of(tmp_path / "log", "run_ended")
    assert (ended["ending"], ended["totals"]) == ("failed", {})

    class Stop(NullProgress):
        def finished(self, record: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(shard_job(), [str(corpus)], tmp_path / "out", logged(tmp_path / "stopped"), Stop())
    (ended,) = events_of(tmp_path / "stopped", "run_ended")
    assert (ended["ending"], ended["totals"]["units_finished"]) == ("interrupted", 1)


def test_log_folder_that_cannot_be_written_is_refused_at_the_start(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--log-dir"):
        run(shard_job(), corpus, tmp_path / "out", logged(tmp_path / "file"))
    with pytest.raises(InputError, match="lies in the output"):
        run(shard_job(), corpus, tmp_path / "out", logged(tmp_path / "out" / "log"))
    for source in (str(corpus), f"other={corpus}", f"{corpus}/*.flac"):
        with pytest.raises(InputError, match="lies in the source"):
            run_job(shard_job(), [source], tmp_path / "out", logged(corpus / "log"))
    assert not (tmp_path / "out").exists()
    assert not (corpus / "log").exists()


def test_full_disk_of_the_log_is_noted_once_and_the_job_continues(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = os.write, Counter[str]()

    def full(descriptor: int, data: bytes) -> int:
        if data.startswith(b'{"time"'):
            calls["lines"] += 1
            if 3 <= calls["lines"] <= 6:
                write(descriptor, data[:7])
                raise OSError(28, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    progress = Notes()
    report = run_job(shard_job(), [str(corpus)], tmp_path / "out", logged(tmp_path / "log"), progress)
    assert report.summary.complete
    (note,) = (note for note in progress.notes if "No space left" in note)
    assert "the run continues" in note
    (lost,) = events_of(tmp_path / "log", "events_lost")  # every line is whole
    assert lost["count"] == 4
    assert "No space left" in lost["reason"]


def test_events_reach_a_store(corpus: Path, tmp_path: Path) -> None:
    run(shard_job(), corpus, tmp_path / "out", replace(LOCAL, log_dir="memory://bucket/log"))
    files = fsspec.filesystem("memory").find("/bucket/log")
    assert len(files) == 1
    lines = [json.loads(line) for line in fsspec.filesystem("memory").cat_file(files[0]).splitlines()]
    assert [lines[0]["event"], lines[-1]["event"]] == ["run_started", "run_ended"]


def test_store_that_fails_for_a_while_loses_no_event(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = RemoteStorage.write, Counter[str]()

    def failing(storage: RemoteStorage, name: str, data: bytes) -> None:
        calls["writes"] += 1
        if 3 <= calls["writes"] <= 6:
            raise ConnectionError("the store is away")
        write(storage, name, data)

    monkeypatch.setattr(RemoteStorage, "write", failing)
    monkeypatch.setattr(event_log, "STORE_SECONDS", 0.0)
    monkeypatch.setattr(event_log, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(event_log, "STORE_BYTES", 1500)  # several objects
    progress = Notes()
    report = run_job(shard_job(), [str(corpus)], tmp_path / "out", logged("memory://bucket/away"), progress)
    assert len([note for note in progress.notes if "the store is away" in note]) == 1
    files = sorted(fsspec.filesystem("memory").find("/bucket/away"), key=lambda name: (len(name), name))
    assert len(files) > 1
    text = b"".join(fsspec.filesystem("memory").cat_file(name) for name in files)
    names = Counter(json.loads(line)["event"] for line in text.splitlines())
    assert names["unit_finished"] == report.new_units
    assert names["run_started"] == names["run_ended"] == 1
    assert names["events_lost"] == 0


def test_store_that_hangs_does_not_delay_the_job(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls, answers = RemoteStorage.write, Counter[str](), threading.Event()

    def hanging(storage: RemoteStorage, name: str, data: bytes) -> None:
        calls["writes"] += 1
        if calls["writes"] > 1:
            answers.wait(60)
        write(storage, name, data)

    monkeypatch.setattr(RemoteStorage, "write", hanging)
    monkeypatch.setattr(event_log, "FLUSH_SECONDS", 0.2)
    waits = Counter[bool]()
    flush = event_log.EventLog.flush
    monkeypatch.setattr(event_log.EventLog, "flush", lambda log, wait=True: (waits.update([wait]), flush(log, wait)))
    progress = Notes()
    report = run_job(shard_job(), [str(corpus)], tmp_path / "out", logged("memory://bucket/hangs"), progress)
    assert report.new_units
    assert not answers.is_set()
    assert waits[True] == 1  # the end waits once
    assert len([note for note in progress.notes if "the store does not answer within 0.2 s" in note]) == 1
    answers.set()  # the thread ends


def test_lines_that_a_store_does_not_take_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "HELD_BYTES", 2000)
    monkeypatch.setattr(event_log, "FLUSH_SECONDS", 5.0)
    write, answers, notes = RemoteStorage.write, threading.Event(), list[str]()

    def hanging(storage: RemoteStorage, name: str, data: bytes) -> None:
        assert not data or answers.wait(60)
        write(storage, name, data)

    monkeypatch.setattr(RemoteStorage, "write", hanging)
    log = event_log.EventLog(open_storage("memory://bucket/full"), "log", notes.append)
    for number in range(50):
        log.write(UnitStarted(unit=number, node="here", attempt=1), "shard")
    assert len(notes) == 1
    answers.set()
    log.flush()
    log.write(UnitStarted(unit=50, node="here", attempt=1), "shard")
    log.close()
    (file,) = fsspec.filesystem("memory").find("/bucket/full")
    lines = [json.loads(line) for line in fsspec.filesystem("memory").cat_file(file).splitlines()]
    units = [line for line in lines if line["event"] == "unit_started"]
    (lost,) = [line for line in lines if line["event"] == "events_lost"]
    assert units[-1]["unit"] == 50
    assert lost["count"] == 51 - len(units) > 0


def test_all_commands_with_an_engine_take_a_log_folder() -> None:
    def commands(group: Any, name: str) -> Iterator[tuple[str, set[str]]]:
        for verb, command in getattr(group, "commands", {}).items():
            yield f"{name} {verb}", {option for parameter in command.params for option in parameter.opts}
            yield from commands(command, f"{name} {verb}")

    options = dict(commands(typer.main.get_command(app), "codectok"))
    with_engine = {name for name, found in options.items() if "--engine" in found}
    assert {"codectok shard", "codectok train", "codectok evaluate", "codectok export chat"} < with_engine
    assert {name for name, found in options.items() if "--log-dir" in found} == with_engine


def test_variable_names_the_log_folder(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODECTOK_LOG_DIR", str(tmp_path / "log"))
    command = ["shard", str(corpus), str(tmp_path / "out"), "--engine", "local", "--max-rejects", "1"]
    preview = CliRunner().invoke(app, [*command, "--dry-run"])
    assert preview.exit_code == 0, preview.output
    assert not (tmp_path / "log").exists()
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    phases = [line["phase"] for line in events_of(tmp_path / "log", "phase_started")]
    assert phases == ["plan", "workers", "units", "end"]


def test_dead_workers_and_their_units_are_told_with_a_reason() -> None:
    kept = Kept()
    timer = RunTimer(events=kept)
    for worker in ("a", "b"):
        timer.begin_worker(worker)
        timer.worker_ready(worker, {}, "here")
    timer.begin_unit(7, "here")
    timer.end_worker("a", "it ran out of memory")
    timer.retry_unit(7, "its worker died")
    timer.begin_worker("c")
    timer.begin_unit(7, "there", 2)
    timer.end_unit(7)
    for worker in ("b", "c"):
        timer.end_worker(worker)
    assert [(event.worker, event.node, event.reason) for event in kept.of(WorkerDied)] == [
        (1, "here", "it ran out of memory")
    ]
    assert [(event.unit, event.node, event.reason) for event in kept.of(UnitRetried)] == [
        (7, "here", "its worker died")
    ]
    assert [event.attempt for event in kept.of(UnitStarted)] == [1, 2]
    assert len(kept.of(WorkerEnded)) == 3
