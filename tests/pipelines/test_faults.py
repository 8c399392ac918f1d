"""Workers that die, hang or fail: their units are made elsewhere, and a file that crashes its decoder is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray.cloudpickle

from codectok import CodectokError
from codectok.pipelines.engine import RunOptions, run_job
from codectok.pipelines.faults import run_despite_crashes
from codectok.pipelines.job import UnitOutput
from codectok.pipelines.listing import list_sources, parse_arguments
from codectok.pipelines.output import OutputFolder
from codectok.pipelines.plan import Unit
from codectok.pipelines.planning import ordered_sources
from codectok.pipelines.shard import ShardJob, ShardOptions
from codectok.storage import LocalStorage

from . import test_faults
from .jobs import UNIT_SECONDS, digests, rejects, run, shard_job

# Actors and child processes cannot import the tests.
ray.cloudpickle.register_pickle_by_value(test_faults)


class FaultyJob(ShardJob):
    """Does something to its worker when a unit has the file `b.flac`, `times` times (counted in files of `notes`)."""

    def __init__(self, fault: str, notes: Path, times: int = 1_000_000) -> None:
        super().__init__(ShardOptions(shard_seconds=UNIT_SECONDS))
        self.fault, self.notes, self.times = fault, notes, times

    def run(self, unit: Unit, output: UnitOutput) -> None:
        if any(source.path == "b.flac" for source in unit.sources):
            happened = len(list(self.notes.iterdir()))
            if happened < self.times:
                (self.notes / str(happened)).touch()
                if self.fault == "hang":
                    time.sleep(1000)
                if self.fault == "error":
                    raise RuntimeError("bad luck")
                if self.fault == "exit":
                    os._exit(3)
                os.kill(os.getpid(), getattr(signal, self.fault))
        super().run(unit, output)


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
def test_a_worker_that_dies_or_fails_now_and_then_costs_nothing(
    fault: str, times: int, corpus: Path, notes: Path, tmp_path: Path, clean: dict[str, str]
) -> None:
    run(FaultyJob(fault, notes, times), corpus, tmp_path / "out", on_ray())
    assert len(list(notes.iterdir())) == times
    assert digests(tmp_path / "out") == clean


@pytest.mark.usefixtures("ray_session")
def test_a_worker_that_hangs_is_given_up(corpus: Path, notes: Path, tmp_path: Path, clean: dict[str, str]) -> None:
    run(FaultyJob("hang", notes, 1), corpus, tmp_path / "out", on_ray(deadline_seconds=8.0))
    assert digests(tmp_path / "out") == clean


@pytest.mark.usefixtures("ray_session")
def test_a_unit_that_always_fails_is_named(corpus: Path, notes: Path, tmp_path: Path, clean: dict[str, str]) -> None:
    with pytest.raises(CodectokError, match=r"1 of 4 units failed \(0; the first: RuntimeError: bad luck\)"):
        run(FaultyJob("error", notes), corpus, tmp_path / "out", on_ray())
    assert run(shard_job(), corpus, tmp_path / "out").new_units == 1
    assert digests(tmp_path / "out") == clean


def check_that_the_culprit_alone_is_missing(folder: Path, clean_folder: Path) -> None:
    rows = {row["source"]: row["reason"] for row in rejects(folder)}
    assert rows["b.flac"] == "decoder_crash"
    others = {row["source"]: row["reason"] for row in rejects(clean_folder)}
    assert {name: reason for name, reason in rows.items() if name != "b.flac"} == others


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("fault", ["SIGSEGV", pytest.param("exit", marks=pytest.mark.slow)])
def test_a_file_that_crashes_its_decoder_is_rejected_alone(
    fault: str, corpus: Path, notes: Path, tmp_path: Path
) -> None:
    report = run(FaultyJob(fault, notes), corpus, tmp_path / "out", on_ray())
    assert report.summary.total.rejects["decoder_crash"] == 1
    assert len(list(notes.iterdir())) > 5  # two actors, the unit and its halves, the file alone three times
    run(shard_job(), corpus, tmp_path / "clean")
    check_that_the_culprit_alone_is_missing(tmp_path / "out", tmp_path / "clean")


def test_the_local_engine_survives_it_too(corpus: Path, notes: Path, tmp_path: Path) -> None:
    """The unit that was being made when a process died is made in child processes by the next one."""
    script = (
        "import sys; from pathlib import Path; from tests.pipelines.jobs import run;"
        "from tests.pipelines.test_faults import FaultyJob; notes, corpus, output = map(Path, sys.argv[1:]);"
        "run(FaultyJob('SIGSEGV', notes), corpus, output)"
    )
    arguments = [sys.executable, "-c", script, str(notes), str(corpus), str(tmp_path / "out")]
    assert subprocess.run(arguments, cwd=Path(__file__).parents[2], check=False).returncode == -signal.SIGSEGV
    report = run(FaultyJob("SIGSEGV", notes), corpus, tmp_path / "out")
    assert report.summary.total.rejects["decoder_crash"] == 1
    run(shard_job(), corpus, tmp_path / "clean")
    check_that_the_culprit_alone_is_missing(tmp_path / "out", tmp_path / "clean")


def test_being_killed_from_outside_is_no_files_fault(corpus: Path, notes: Path, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "out")
    job = FaultyJob("SIGKILL", notes)
    sources = tuple(ordered_sources(list_sources(*parse_arguments([str(corpus)]), job.kinds)))
    attempt = OutputFolder(storage, "whole").attempt(0, 1)
    with pytest.raises(CodectokError, match="killed from outside 3 times, the last by signal 9"):
        run_despite_crashes(job, Unit(0, sources), storage, attempt)
    record = run_despite_crashes(FaultyJob("SIGKILL", notes, times=3), Unit(0, sources), storage, attempt)
    assert "decoder_crash" not in record.total.rejects


@pytest.mark.usefixtures("ray_session")
def test_a_full_disk_stops_the_job_at_once(corpus: Path, tmp_path: Path) -> None:
    class FullDisk(ShardJob):
        def run(self, unit: Unit, output: UnitOutput) -> None:
            raise OSError(28, "No space left on device", "shard.tar")

    for engine in ("local", "ray"):
        options = RunOptions(engine=engine, workers=1, max_rejects=1.0)
        with pytest.raises(OSError, match="No space left"):
            run_job(FullDisk(ShardOptions()), [str(corpus)], tmp_path / engine, options)
        assert not list((tmp_path / engine).glob("*.tar"))
