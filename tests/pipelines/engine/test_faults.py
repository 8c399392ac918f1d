"""Faults: units of workers that die, hang or fail are made by others, and a crashing file is rejected alone."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle
import soundfile

from codectok import CodectokError
from codectok.audio.files import read_audio
from codectok.errors import AudioError
from codectok.pipelines.engine.crashes import run_despite_crashes
from codectok.pipelines.engine.faults import UnitError
from codectok.pipelines.engine.job import WorkerContext
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.output.folder import OutputFolder
from codectok.pipelines.engine.output.records import UnitRecord
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.shard.job import ShardJob
from codectok.pipelines.shard.options import ShardOptions
from codectok.sources.clip import Clip
from codectok.sources.clips import clips_of
from codectok.sources.listing.arguments import parse_arguments
from codectok.sources.listing.ordering import ordered_sources
from codectok.sources.listing.sources import list_sources
from codectok.storage import LocalStorage
from tests.helpers.audio import tone
from tests.helpers.events import events_of, metrics_of, value_of
from tests.helpers.hooked_jobs import BeforeUnits
from tests.helpers.jobs import UNIT_SECONDS, digests, rejects, run, shard_job
from tests.helpers.tars import write_tar

from . import test_faults

# Actors and child processes cannot import the tests.
ray.cloudpickle.register_pickle_by_value(test_faults)


class FaultyJob(BeforeUnits, ShardJob):
    """Fails or kills its worker before a unit with the file `b.flac`, `times` times (counted by files in `notes`)."""

    def __init__(self, fault: str, notes: Path, times: int = 1_000_000) -> None:
        super().__init__(ShardOptions(shard_seconds=UNIT_SECONDS))
        self.fault, self.notes, self.times = fault, notes, times

    def before(self, unit: Unit, output: UnitOutput) -> None:
        if any(source.path == "b.flac" for source in unit.sources):
            happened = len(list(self.notes.iterdir()))
            if happened < self.times:
                (self.notes / str(happened)).touch()
                if self.fault == "hang":
                    time.sleep(1000)
                if self.fault == "error":
                    raise RuntimeError("bad luck")
                if self.fault == "memory":
                    raise UnitError("Killed from outside.")
                if self.fault == "exit":
                    os._exit(3)
                os.kill(os.getpid(), getattr(signal, self.fault))


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@pytest.fixture(scope="module")
def clean(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("clean") / "out"
    run(shard_job(), corpus, folder)
    return digests(folder)


def on_ray(workers: int = 2, deadline_seconds: float = 1000.0) -> RunOptions:
    return RunOptions(engine="ray", workers=workers, max_rejects=1.0, deadline_seconds=deadline_seconds)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("fault", "times"),
    [("SIGKILL", 1), ("SIGSEGV", 1), ("error", 2), pytest.param("SIGKILL", 3, marks=pytest.mark.slow)],
)
def test_worker_faults_do_not_change_output(
    fault: str, times: int, corpus: Path, notes: Path, tmp_path: Path, clean: dict[str, str]
) -> None:
    options = replace(on_ray(), log_dir=str(tmp_path / "log"))
    run(FaultyJob(fault, notes, times), corpus, tmp_path / "out", options)
    assert len(list(notes.iterdir())) == times
    assert digests(tmp_path / "out") == clean
    retried = min(times, 2)  # then the unit runs in a child process
    assert len(events_of(tmp_path / "log", "unit_retried")) >= retried
    died = 0 if fault == "error" else retried
    assert len(events_of(tmp_path / "log", "worker_died")) == died
    assert value_of(metrics_of(tmp_path / "log"), "codectok_workers_died_total") == died


@pytest.mark.usefixtures("ray_session")
def test_hanging_worker_is_replaced(corpus: Path, notes: Path, tmp_path: Path, clean: dict[str, str]) -> None:
    run(FaultyJob("hang", notes, 1), corpus, tmp_path / "out", on_ray(deadline_seconds=8.0))
    assert digests(tmp_path / "out") == clean


@pytest.mark.usefixtures("ray_session")
def test_failing_unit_is_named_and_retried(corpus: Path, notes: Path, tmp_path: Path, clean: dict[str, str]) -> None:
    with pytest.raises(CodectokError, match=r"1 of 4 units failed \(0; the first: RuntimeError: bad luck\)"):
        run(FaultyJob("error", notes), corpus, tmp_path / "out", on_ray())
    assert run(shard_job(), corpus, tmp_path / "out").new_units == 1
    assert digests(tmp_path / "out") == clean


def check_only_culprit_is_missing(folder: Path, clean_folder: Path) -> None:
    rows = {row["source"]: row["reason"] for row in rejects(folder)}
    assert rows["b.flac"] == "decoder_crash"
    others = {row["source"]: row["reason"] for row in rejects(clean_folder)}
    assert {name: reason for name, reason in rows.items() if name != "b.flac"} == others


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("fault", ["SIGSEGV", "exit"])
def test_crashing_file_is_rejected_alone(fault: str, corpus: Path, notes: Path, tmp_path: Path) -> None:
    report = run(FaultyJob(fault, notes), corpus, tmp_path / "out", on_ray())
    assert report.summary.total.rejects["decoder_crash"] == 1
    assert len(list(notes.iterdir())) > 5  # two actors, the unit and its halves, the file alone three times
    run(shard_job(), corpus, tmp_path / "clean")
    check_only_culprit_is_missing(tmp_path / "out", tmp_path / "clean")


def test_local_engine_rejects_crashing_file(corpus: Path, notes: Path, tmp_path: Path) -> None:
    """A unit in progress when a run died is made in child processes by the next run."""
    script = (
        "import sys; from pathlib import Path; from tests.helpers.jobs import run;"
        "from tests.pipelines.engine.test_faults import FaultyJob; notes, corpus, output = map(Path, sys.argv[1:]);"
        "run(FaultyJob('SIGSEGV', notes), corpus, output)"
    )
    few = tmp_path / "few"
    few.mkdir()
    for name in ("a.wav", "b.flac", "text.wav"):
        shutil.copy(corpus / name, few)
    arguments = [sys.executable, "-c", script, str(notes), str(few), str(tmp_path / "out")]
    assert subprocess.run(arguments, cwd=Path(__file__).parents[3], check=False).returncode == -signal.SIGSEGV
    report = run(FaultyJob("SIGSEGV", notes), few, tmp_path / "out")
    assert report.summary.total.rejects["decoder_crash"] == 1
    run(shard_job(), few, tmp_path / "clean")
    check_only_culprit_is_missing(tmp_path / "out", tmp_path / "clean")


def test_failed_unit_is_told_in_a_folder_that_is_not_utf8(corpus: Path, notes: Path, tmp_path: Path) -> None:
    output = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(CodectokError, match="bad luck"):
        run(FaultyJob("error", notes), corpus, output)
    (status,) = (output / "_codectok" / "runs").iterdir()
    assert "caf" in status.read_text()


def test_kill_from_outside_rejects_no_file(corpus: Path, notes: Path, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "out")
    job = FaultyJob("SIGKILL", notes)
    sources = tuple(ordered_sources(list_sources(*parse_arguments([str(corpus)]), job.kinds)))
    attempt = OutputFolder(storage, "whole").attempt(0, 1)
    with pytest.raises(CodectokError, match="killed from outside 3 times, the last by signal 9"):
        run_despite_crashes(job, WorkerContext(storage), Unit(0, sources), attempt)
    passing = FaultyJob("SIGKILL", notes, times=3)
    record = run_despite_crashes(passing, WorkerContext(storage), Unit(0, sources), attempt).record
    assert "decoder_crash" not in record.total.rejects


@pytest.mark.usefixtures("ray_session")
def test_full_disk_stops_the_job(corpus: Path, tmp_path: Path) -> None:
    class FullDisk(BeforeUnits, ShardJob):
        def before(self, unit: Unit, output: UnitOutput) -> None:
            raise OSError(28, "No space left on device", "shard.tar")

    for engine in ("local", "ray"):
        options = RunOptions(engine=engine, workers=1, max_rejects=1.0)
        with pytest.raises(OSError, match="No space left"):
            run_job(FullDisk(ShardOptions()), [str(corpus)], tmp_path / engine, options)
        assert not list((tmp_path / engine).glob("*.tar"))


class CrashingClip(BeforeUnits, ShardJob):
    """Crashes before a unit with a clip of this length."""

    def __init__(self, seconds: float, tries: Path) -> None:
        super().__init__(ShardOptions(shard_seconds=UNIT_SECONDS))
        self.seconds, self.tries = seconds, tries

    def before(self, unit: Unit, output: UnitOutput) -> None:
        with (self.tries / "runs").open("a") as file:
            file.write("x")
        for source in unit.sources:
            for clip in clips_of(source):
                if isinstance(clip, Clip) and len(read_audio(clip.audio, 24_000)) == round(self.seconds * 24_000):
                    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.slow
def test_crashing_clip_in_tar_is_rejected_alone(notes: Path, tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    members = []
    for number in range(9):
        data = io.BytesIO()
        soundfile.write(data, tone(2.0 + number / 4, 24_000), 24_000, format="FLAC")
        members.append((f"{number}.flac", data.getvalue()))
    write_tar(inside / "a.tar", members)
    storage, job = LocalStorage(tmp_path / "out"), CrashingClip(3.25, notes)
    sources = tuple(ordered_sources(list_sources(*parse_arguments([str(inside)]), job.kinds)))
    attempt = OutputFolder(storage, "whole").attempt(0, 1)
    record = run_despite_crashes(job, WorkerContext(storage), Unit(0, sources), attempt).record
    assert (record.total.rows, record.total.inputs, record.total.rejects) == (8, 9, {"decoder_crash": 1})
    (row,) = rejects(tmp_path / "out" / attempt)
    assert (row["source"], row["reason"]) == ("a.tar/5.flac", "decoder_crash")


def in_children(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let child processes begin with some code."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def run_alone(job: ShardJob, inside: Path, output: Path) -> UnitRecord:
    """Run all of a folder as one unit in child processes."""
    sources = tuple(ordered_sources(list_sources(*parse_arguments([str(inside)]), job.kinds)))
    storage = LocalStorage(output)
    attempt = OutputFolder(storage, "whole").attempt(0, 1)
    return run_despite_crashes(job, WorkerContext(storage), Unit(0, sources), attempt).record


@pytest.mark.slow
def test_container_that_crashes_its_reader_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    write_tar(inside / "a.tar", [("1.flac", b"")])
    soundfile.write(inside / "b.wav", tone(3.0, 16_000), 16_000)
    crash = """
import os
from codectok.sources import clips
read = clips._clips_in
clips._clips_in = lambda source: os.abort() if source.path == "a.tar" else read(source)
"""
    in_children(crash, tmp_path / "code", monkeypatch)
    record = run_alone(shard_job(), inside, tmp_path / "out")
    assert (record.total.rows, record.total.rejects) == (1, {"decoder_crash": 1})


class OwnError(Exception):
    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)


class FailingJob(BeforeUnits, ShardJob):
    """Raises an error that another process cannot get."""

    def __init__(self, error: Callable[[], Exception]) -> None:
        super().__init__(ShardOptions())
        self.error = error

    def before(self, unit: Unit, output: UnitOutput) -> None:
        raise self.error()


def test_errors_of_children_are_no_crashes(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnitError, match=r"RuntimeError.*bad luck"):
        run_alone(FailingJob(lambda: RuntimeError("bad luck", threading.Lock())), corpus, tmp_path / "out")
    with pytest.raises(UnitError, match=r"OwnError.*bad luck"):
        run_alone(FailingJob(lambda: OwnError("bad luck", 1)), corpus, tmp_path / "out")
    in_children("import os; os.write(2, b'no memory'); os._exit(3)", tmp_path / "code", monkeypatch)
    with pytest.raises(UnitError, match="A process for unit 0 could not start: no memory"):
        run_alone(shard_job(), corpus, tmp_path / "out")


@pytest.mark.slow
def test_spans_of_crashing_file_are_rejected_together(corpus: Path, notes: Path, tmp_path: Path) -> None:
    rows = [{"path": str(corpus / "b.flac"), "start": 2.5 * n, "end": 2.5 * n + 2.5, "id": str(n)} for n in range(6)]
    rows.append({"path": str(corpus / "a.wav")})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = CrashingFile(notes)
    sources = tuple(ordered_sources(list_sources(*parse_arguments([str(tmp_path / "rows.jsonl")]), job.kinds)))
    storage = LocalStorage(tmp_path / "out")
    attempt = OutputFolder(storage, "whole").attempt(0, 1)
    record = run_despite_crashes(job, WorkerContext(storage), Unit(0, sources), attempt).record
    assert record.total.rejects["decoder_crash"] == 6
    assert record.total.rows > 0
    # The whole, a half, the culprit three times, and the rest.
    assert len((notes / "runs").read_text()) <= 7


class CrashingFile(BeforeUnits, ShardJob):
    """Crashes before a unit with the file `b.flac`."""

    def __init__(self, tries: Path) -> None:
        super().__init__(ShardOptions(shard_seconds=UNIT_SECONDS))
        self.tries = tries

    def before(self, unit: Unit, output: UnitOutput) -> None:
        with (self.tries / "runs").open("a") as file:
            file.write("x")
        if any(source.path.endswith("b.flac") for source in unit.sources):
            os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_dying_unit_does_not_stop_other_units(
    engine: str, corpus: Path, notes: Path, tmp_path: Path, clean: dict[str, str]
) -> None:
    options = RunOptions(engine=engine, workers=2, max_rejects=1.0)  # type: ignore[arg-type]
    with pytest.raises(CodectokError, match="1 of 4 units failed"):
        run(FaultyJob("memory", notes), corpus, tmp_path / "out", options)
    assert len(list((tmp_path / "out").glob("*.tar"))) == len([name for name in clean if name.endswith(".tar")]) - 1
    (failure,) = (tmp_path / "out" / "_codectok" / "failures").iterdir()
    assert "Killed from outside." in failure.read_text()
    run(shard_job(), corpus, tmp_path / "out")
    assert digests(tmp_path / "out") == clean


def test_passing_disk_errors_reject_no_file(
    corpus: Path, tmp_path: Path, clean: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = Path.open, iter([errno.ESTALE, errno.EIO])

    def unsteady(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "b.flac" and (number := next(failures, None)):
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", unsteady)
    run(shard_job(), corpus, tmp_path / "out")
    assert digests(tmp_path / "out") == clean


def test_read_error_is_not_an_audio_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(3.0, 24_000), 24_000)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(AudioError):
        read_audio(path, 24_000)

    real, opened = Path.open, []

    def refuse_the_second_time(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        if len(opened) == 2:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse_the_second_time)
    with pytest.raises(OSError, match="Input/output error"):
        read_audio(path, 24_000)
