"""`status` says from the files alone how far a job is, and writes nothing."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from codectok import CodectokError, InputError
from codectok.cli.main import main
from codectok.pipelines.engine import lock as lock_module
from codectok.pipelines.engine import run_log, status
from codectok.pipelines.engine.lock import JobShare, entry, lock_job
from codectok.pipelines.engine.status import JobReader, JobStatus
from codectok.storage import LocalStorage, open_storage
from tests.helpers.command_line import assert_refused, codectok, one_line
from tests.helpers.jobs import LOCAL, digests, run, shard_job
from tests.helpers.stopped_jobs import WatchedJob, forked, kill_in_unit, wait_for

UNITS = 4
HERE = socket.gethostname()


def read(output: Path | str) -> JobStatus:
    return JobReader(str(output)).read()


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Times and contents of all files."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture
def quick_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "DISK_SECONDS", 0.02)


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished output, made by several runs."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    run(shard_job(), corpus, folder, replace(LOCAL, limit=3))
    run(shard_job(), corpus, folder)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "copy")


def test_counts_equal_records_after_each_stop(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for number in range(1, UNITS + 1):
        report = run(shard_job(), corpus, out, replace(LOCAL, limit=1))
        found = read(out)
        assert (found.done, found.planned, found.failed) == (number, UNITS, 0)
        assert found.state == ("complete" if number == UNITS else "stopped")
        assert found.is_over and not found.running
        assert found.input_seconds == pytest.approx(report.summary.total.input_seconds)
        assert not found.is_estimate
        assert {node: work.units for node, work in found.nodes.items()} == {HERE: number}
        assert sum(work.input_seconds for work in found.nodes.values()) == pytest.approx(found.input_seconds)
        (one,) = found.runs
        assert (one.file.name, one.file.ending, one.file.earlier.runs) == ("whole", "finished", number - 1)
    before = (out / "_codectok/runs/whole.json").read_bytes()
    run(shard_job(), corpus, out)
    assert (out / "_codectok/runs/whole.json").read_bytes() == before


@pytest.mark.usefixtures("quick_signs")
def test_running_job_shows_units_at_work_and_finished_ones(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen: dict[int, JobStatus] = {}

    def look(unit: int) -> None:
        wait_for(
            lambda: [one.unit for one in read(out).running] == [unit] and read(out).runs[0].file.units_made == unit
        )
        seen[unit] = read(out)

    run(WatchedJob(look), corpus, out)
    assert sorted(seen) == list(range(UNITS))
    for unit, found in seen.items():
        assert (found.state, found.done, found.waiting) == ("running", unit, 0)
        assert [(one.unit, one.node) for one in found.running] == [(unit, HERE)]
        assert (found.speed is None) == (found.seconds_left is None) == (unit == 0)
    assert seen[3].seconds_left is not None and seen[3].seconds_left > 0


@pytest.mark.usefixtures("quick_signs")
def test_two_parts_at_the_same_time_are_both_shown(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen: list[JobStatus] = []

    def look(unit: int) -> None:
        if not seen:
            wait_for(lambda: len(read(out).running) == 2)
            seen.append(read(out))

    def run_other_part(unit: int) -> None:
        if unit == 0:
            run(WatchedJob(look), corpus, out, replace(LOCAL, part=JobShare(2, 3)))

    run(WatchedJob(run_other_part), corpus, out, replace(LOCAL, part=JobShare(1, 3)))
    (found,) = seen
    assert [one.file.name for one in found.runs if one.alive] == ["part-1-of-3", "part-2-of-3"]
    assert [one.unit for one in found.running] == [0, 1]
    assert found.waiting == 1
    after = read(out)
    assert (after.state, after.done, after.runs[1].file.ending) == ("stopped", 3, "finished")
    assert after.nodes[HERE].units == 3


def test_killed_driver_is_stopped_at_once(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kill_in_unit(corpus, out, 2)
    found = read(out)
    assert (found.state, found.done, found.running) == ("stopped", 2, ())
    assert found.runs[0].file.ended is None and not found.runs[0].alive
    shown = one_line(codectok("status", out).stdout)
    assert "stopped; run the same command again to resume" in shown
    assert "2 of 4 done" in shown
    assert "killed" in shown


def test_driver_on_another_machine_is_judged_by_its_last_sign(copy: Path) -> None:
    (copy / "_codectok/records/000001.json").unlink()
    path = copy / "_codectok/runs/whole.json"
    for age, state in ((5.0, "running"), (-5.0, "running"), (100.0, "stopped")):
        values = {"host": "another", "ended": None, "ending": "", "updated": time.time() - age}
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        assert read(copy).state == state


def test_failed_units_are_listed_with_their_errors(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fail(unit: int) -> None:
        if unit in (1, 3):
            raise ZeroDivisionError(f"of [unit] {unit}\nand its second line")

    with pytest.raises(CodectokError):
        run(WatchedJob(fail), corpus, out)
    found = read(out)
    assert (found.state, found.done, found.failed) == ("failed units", 2, 2)
    assert [failure.unit for failure in found.failures] == [1, 3]
    assert found.failures[0].error == "and its second line"
    shown = one_line(codectok("status", out).stdout)
    assert "2 failed" in shown and "Unit 1 failed: ZeroDivisionError: of [unit] 1" in shown
    run(shard_job(), corpus, out)
    assert (read(out).state, read(out).failed) == ("complete", 0)


def test_status_writes_nothing(copy: Path, corpus: Path, tmp_path: Path) -> None:
    run(shard_job(), corpus, tmp_path / "part", replace(LOCAL, limit=1))
    before = files_of(tmp_path)
    for out in (copy, tmp_path / "part"):
        for options in ([], ["--json"], ["--watch"]):
            assert codectok("status", out, *options).exit_code == 0
    assert files_of(tmp_path) == before


def test_json_holds_all_facts(copy: Path) -> None:
    facts = json.loads(codectok("status", copy, "--json").stdout)
    assert (facts["verb"], facts["state"], facts["first_pass"]) == ("shard", "complete", None)
    assert facts["units"] == {"planned": UNITS, "done": UNITS, "running": 0, "failed": 0}
    assert facts["nodes"][HERE]["units"] == UNITS
    assert facts["runs"][0]["earlier"]["runs"] == 1
    assert facts["run_seconds"] > 0


def test_outputs_without_files_about_runs_have_a_status(copy: Path) -> None:
    expected = read(copy)
    shutil.rmtree(copy / "_codectok/runs")
    found = read(copy)
    assert (found.state, found.done, found.input_seconds) == ("complete", UNITS, expected.input_seconds)
    (copy / "_codectok/records/000001.json").unlink()
    assert (read(copy).state, read(copy).done) == ("stopped", UNITS - 1)
    assert codectok("status", copy).exit_code == 0


def test_audio_is_estimated_from_a_bounded_number_of_records(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = read(copy).input_seconds
    (copy / "_codectok/summary.json").unlink()
    monkeypatch.setattr(status, "SAMPLED_RECORDS", 2)
    names: list[str] = []
    reading = LocalStorage.read

    def read_and_note(storage: LocalStorage, name: str) -> bytes:
        names.append(name)
        return reading(storage, name)

    monkeypatch.setattr(LocalStorage, "read", read_and_note)
    reader = JobReader(str(copy))
    for _ in range(3):
        found = reader.read()
    assert found.is_estimate
    assert found.input_seconds == pytest.approx(exact, rel=0.5)
    assert "about" in codectok("status", copy).stdout
    assert len([name for name in names if "/records/" in name]) == 4


def test_first_pass_has_its_own_status(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(shard_job(deduplicate=True), corpus, out, replace(LOCAL, limit=1))
    found = read(out)
    assert found.state == "stopped" and found.first_pass is not None
    assert (found.first_pass.state, found.first_pass.done) == ("complete", UNITS)
    assert "first pass" in codectok("status", out).stdout


def test_places_without_a_job_are_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for verb in ("status", "clean"):
        for name in ("file", "nowhere", "."):
            assert_refused(codectok(verb, tmp_path / name), "holds no job")
        assert_refused(codectok(verb, f"memory://nothing-{verb}"), "holds no job")


def test_job_that_is_being_planned_has_a_status(tmp_path: Path) -> None:
    with entry(open_storage(tmp_path)):
        assert read(tmp_path).state == "planning"
    assert read(tmp_path).state == "stopped"
    assert codectok("status", tmp_path).exit_code == 0


def test_file_of_a_killed_run_is_not_taken_for_the_next_one(corpus: Path, tmp_path: Path) -> None:
    kill_in_unit(corpus, tmp_path, 2)
    storage = LocalStorage(tmp_path)
    with entry(storage):
        lock = lock_job(storage, None)
    found = read(tmp_path)
    assert (found.state, found.living, found.running) == ("running", (), ())
    lock.release()


def test_damaged_file_about_a_run_is_named(copy: Path) -> None:
    (copy / "_codectok/runs/whole.json").write_text('{"name": 3}')
    assert_refused(codectok("status", copy), "whole.json is damaged", "delete it")


def test_damaged_file_about_a_run_stops_no_job(copy: Path, corpus: Path) -> None:
    before = digests(copy)
    (copy / "_codectok/runs/whole.json").write_text("[")
    (copy / "_codectok/records/000001.json").unlink()
    run(shard_job(), corpus, copy)
    assert digests(copy) == before
    assert read(copy).runs[0].file.earlier.runs == 0


def test_run_that_lost_its_folder_does_not_write_it_again(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(CodectokError):
        run(WatchedJob(lambda unit: shutil.rmtree(out) if unit == 2 else None), corpus, out)
    assert not (out / "_codectok/runs").exists()


def test_looking_does_not_disturb_a_run_that_takes_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    with entry(storage):
        lock_job(storage, None).release()
    with (tmp_path / "_codectok/locks/whole").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as `holder` does
        monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(file, fcntl.LOCK_UN))
        lock = lock_job(storage, None)
    assert lock_module.held_locks(storage) == {"whole": f"process {os.getpid()} on {HERE}"}
    lock.release()
    assert lock_module.held_locks(storage) == {}


def test_watching_ends_quietly_by_an_interrupt(corpus: Path, tmp_path: Path) -> None:
    run(shard_job(), corpus, tmp_path, replace(LOCAL, limit=1))
    storage = LocalStorage(tmp_path)
    with entry(storage):
        lock = lock_job(storage, None)
    log = tmp_path / "log"

    def watch() -> None:
        sys.argv = ["codectok", "status", str(tmp_path), "--watch"]
        with log.open("w", buffering=1) as sys.stdout, (tmp_path / "errors").open("w", buffering=1) as sys.stderr:
            try:
                main()
            except SystemExit as end:
                os._exit(int(end.code or 0))

    process = forked(watch)
    wait_for(lambda: log.exists() and log.read_text().startswith("shard: running, 1 of 4 done"))
    os.kill(process, signal.SIGINT)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert (tmp_path / "errors").read_text() == ""
    lock.release()


def test_watching_follows_a_job_to_its_end(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(shard_job(), corpus, tmp_path, replace(LOCAL, limit=1))
    storage = LocalStorage(tmp_path)
    with entry(storage):
        lock = lock_job(storage, None)
    monkeypatch.setattr(time, "sleep", lambda _: lock.release())
    lines = codectok("status", tmp_path, "--watch").stdout.splitlines()
    assert lines[0].startswith("shard: running, 1 of 4 done")
    assert lines[1].startswith("shard: stopped, 1 of 4 done")
    assert "codectok status" in lines[2]


def test_object_store_has_a_status(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(run_log, "STORE_SECONDS", 0.02)
    url = f"memory://status-{tmp_path.name}"
    seen: list[JobStatus] = []

    def look(unit: int) -> None:
        if unit == 1:
            wait_for(lambda: [one.unit for one in read(url).running] == [1])
            seen.append(read(url))

    run(WatchedJob(look), corpus, url)
    assert (seen[0].state, seen[0].done) == ("running", 1)
    assert (read(url).state, read(url).done) == ("complete", UNITS)


def test_status_of_a_missing_plan_file_is_refused(copy: Path) -> None:
    (copy / "_codectok/plan.json").write_text("{")
    with pytest.raises(InputError, match="plan"):
        read(copy)
