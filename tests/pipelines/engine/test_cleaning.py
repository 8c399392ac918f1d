"""`clean` removes the leftovers of killed runs, and nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from codectok import CodectokError, InputError
from codectok.cli.main import app
from codectok.pipelines.engine import lock as lock_module
from codectok.pipelines.engine.cleaning import find_leftovers, remove_leftovers
from codectok.pipelines.engine.lock import JobShare, entry, lock_job
from codectok.pipelines.engine.status import JobReader
from codectok.pipelines.engine.uploads import unfinished_uploads
from codectok.pipelines.verify.output import verify_output
from codectok.storage import LocalStorage, open_storage
from tests.helpers.command_line import assert_refused, codectok, one_line
from tests.helpers.jobs import LOCAL, digests, run, shard_job
from tests.helpers.stopped_jobs import WatchedJob, kill_in_unit
from tests.helpers.storage import upload

HALF = "_codectok/records/.000002.json.0a1b2c3d.tmp"


@pytest.fixture(scope="module")
def clean(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the output of one clean run."""
    folder = tmp_path_factory.mktemp("clean") / "out"
    run(shard_job(), corpus, folder)
    return digests(folder)


@pytest.fixture(scope="module")
def killed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output whose driver was killed in unit 2, with the file of unit 3 in its place and half of a record."""
    folder = tmp_path_factory.mktemp("killed") / "out"
    kill_in_unit(corpus, folder, 2)
    (folder / "shard-000003.tar").write_bytes(b"not recorded")
    (folder / "_codectok/rejects/000003.parquet").write_bytes(b"not recorded")
    (folder / HALF).write_bytes(b"{")
    (folder / "_codectok/probes").mkdir()
    (folder / "_codectok/probes/0a1b").write_bytes(b"0a1b")
    return folder


@pytest.fixture
def out(killed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(killed, tmp_path / "out")


def names_in(folder: Path) -> set[str]:
    """All files, and folders without one; without locks."""
    paths = (path for path in folder.rglob("*") if path.is_file() or not any(path.iterdir()))
    return {path.relative_to(folder).as_posix() for path in paths if "locks" not in path.parts}


def test_clean_removes_what_the_next_run_would_remove(out: Path, corpus: Path, clean: dict[str, str]) -> None:
    before = names_in(out)
    finished = {name for name in before if name in clean} - {"shard-000003.tar", "_codectok/rejects/000003.parquet"}
    result = codectok("clean", out, "--yes")
    assert result.exit_code == 0, result.output
    left = names_in(out)
    assert before - left == {name for name in before if name not in finished and "/runs/" not in name}
    assert HALF in before - left and any("/tmp/whole/000002-1-" in name for name in before - left)
    assert "5 files removed" in result.stdout
    assert not (out / "_codectok/tmp/whole").exists()
    run(shard_job(), corpus, out)
    assert digests(out) == clean
    verify_output(out)
    assert "nothing that a killed run has left" in codectok("clean", out).stdout
    assert digests(out) == clean


def test_finished_output_without_leftovers_is_left_alone(corpus: Path, tmp_path: Path, clean: dict[str, str]) -> None:
    run(shard_job(deduplicate=True), corpus, tmp_path / "out")
    before = names_in(tmp_path / "out")
    assert find_leftovers(open_storage(tmp_path / "out"), failures=True) == []
    assert names_in(tmp_path / "out") == before


def test_leftovers_of_the_first_pass_are_removed(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(shard_job(deduplicate=True), corpus, out, replace(LOCAL, limit=1))
    inner = out / "_codectok/first-pass"
    attempt = inner / "_codectok/tmp/whole/000001-1-abcdef01"
    attempt.mkdir(parents=True)
    (attempt / "half").write_text("half")
    before = names_in(out)
    storage = open_storage(out)
    removed = remove_leftovers(storage, find_leftovers(storage))
    assert [one.name for one in removed] == ["_codectok/first-pass/_codectok/tmp/whole/000001-1-abcdef01/half"]
    assert before - names_in(out) == {one.name for one in removed}


def test_dry_run_and_a_refusal_remove_nothing(out: Path) -> None:
    before = digests(out)
    listed = one_line(codectok("clean", out, "--dry-run").stdout)
    assert "attempts │ 1 │" in listed
    assert "unfinished units │ 2 │" in listed
    answered = CliRunner().invoke(app, ["clean", str(out)], input="n\n")
    assert answered.exit_code == 0 and "Nothing was removed." in answered.stdout
    assert_refused(codectok("clean", out), "--yes")
    assert digests(out) == before
    answered = CliRunner().invoke(app, ["clean", str(out)], input="y\n")
    assert "5 files removed" in answered.stdout
    assert digests(out) != before


@pytest.mark.parametrize("part", [None, JobShare(2, 3)])
def test_running_job_is_refused_with_its_holder(part: JobShare | None, out: Path) -> None:
    storage = LocalStorage(out)
    found = find_leftovers(storage)
    with entry(storage):
        lock = lock_job(storage, part)
    before = digests(out)
    for options in (["--yes"], ["--dry-run"]):
        assert_refused(codectok("clean", out, *options), f"process {os.getpid()} on")
    with pytest.raises(InputError, match="is being written by"):
        remove_leftovers(storage, found)
    assert digests(out) == before
    lock.release()
    assert len(remove_leftovers(storage, found)) == len(found) == 5


def test_driver_on_another_machine_whose_lock_does_not_show_is_refused(out: Path) -> None:
    path = out / "_codectok/runs/whole.json"
    values = {"host": "another", "process": "process 7 on another", "updated": time.time()}
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    before = digests(out)
    assert_refused(codectok("clean", out, "--yes"), "process 7 on another")
    with pytest.raises(InputError, match="process 7 on another"):
        remove_leftovers(LocalStorage(out), [])
    assert digests(out) == before


def test_only_listed_files_that_still_are_leftovers_are_removed(out: Path, corpus: Path, clean: dict[str, str]) -> None:
    storage = open_storage(out)
    found = find_leftovers(storage)
    shutil.rmtree(out / "_codectok/probes")  # a run on a cluster removes them
    shutil.rmtree(out / "_codectok/tmp")  # else the next run takes its time over units that may crash
    run(shard_job(), corpus, out)
    assert remove_leftovers(storage, found) == []
    assert digests(out) == clean


def test_errors_of_failed_units_are_removed_on_request(corpus: Path, tmp_path: Path, clean: dict[str, str]) -> None:
    out = tmp_path / "out"

    def fail(unit: int) -> None:
        if unit == 1:
            raise ZeroDivisionError

    with pytest.raises(CodectokError):
        run(WatchedJob(fail), corpus, out)
    assert find_leftovers(open_storage(out)) == []
    assert codectok("clean", out, "--yes", "--failures").exit_code == 0
    assert (JobReader(str(out)).read().state, JobReader(str(out)).read().failed) == ("stopped", 0)
    run(shard_job(), corpus, out)
    assert digests(out) == clean


def test_lease_of_a_dead_run_is_removed_and_a_living_one_refused(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SETTLE_SECONDS", "RENEW_SECONDS"):
        monkeypatch.setattr(lock_module, name, 0.01)
    url = upload(out, f"memory://clean-{tmp_path.name}")
    storage = open_storage(url)
    for folder in ("locks", "runs"):  # the run is long dead
        storage.remove(f"_codectok/{folder}")
    for age in (10.0, 1000.0):
        lease = {"token": "x", "holder": "process 1 on gone", "time": time.time() - age}
        for share in (1, 2, 3):
            storage.write(f"_codectok/locks/part-{share}-of-3", json.dumps(lease).encode())
        if age < 90:
            assert_refused(codectok("clean", url, "--yes"), "process 1 on gone")
    listed = one_line(codectok("clean", url, "--dry-run").stdout)
    assert "leases │ 3 │" in listed
    before = set(storage.sizes())
    assert codectok("clean", url, "--yes").exit_code == 0
    left = set(storage.sizes())
    assert {name.rpartition("/")[0] for name in before - left} >= {"_codectok/locks"}
    assert not storage.sizes("_codectok/locks") and not storage.sizes("_codectok/tmp")
    assert find_leftovers(storage) == []


def test_unfinished_uploads_to_s3_are_aborted(out: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "SETTLE_SECONDS", 0.01)
    url = upload(out, f"{s3}/clean")
    storage = open_storage(url)
    for folder in ("locks", "runs"):  # the run is long dead
        storage.remove(f"_codectok/{folder}")
    files = fsspec.filesystem("s3")
    for key in ("clean/_codectok/tmp/whole/000002-1-a/shard-000002.tar", "clean-not/other.tar"):
        files.call_s3("create_multipart_upload", Bucket="corpora", Key=key)
    (one,) = unfinished_uploads(storage)
    assert one.name == "_codectok/tmp/whole/000002-1-a/shard-000002.tar"
    assert "uploads │ 1 │" in one_line(codectok("clean", url, "--dry-run").stdout)
    assert codectok("clean", url, "--yes").exit_code == 0
    assert unfinished_uploads(storage) == []
    assert len(unfinished_uploads(open_storage(f"{s3}/clean-not"))) == 1


@pytest.mark.parametrize("folder", ["length-8", "other"])
def test_output_of_another_job_inside_is_left_alone(folder: str, out: Path) -> None:
    """Also by the next run; it may lie in a folder that looks like one of this job."""
    shutil.copytree(out, out / folder)
    inside = {name: (out / folder / name).read_bytes() for name in ("shard-000003.tar", HALF)}
    (out / folder / "part-000003.parquet").write_bytes(b"of another job")
    left = find_leftovers(open_storage(out))
    assert left
    assert not [one for one in left if one.name.startswith(f"{folder}/")]
    remove_leftovers(open_storage(out), left)
    assert {name: (out / folder / name).read_bytes() for name in inside} == inside
    assert (out / folder / "part-000003.parquet").exists()


def test_half_written_file_that_is_held_is_left_alone(out: Path) -> None:
    with (out / HALF).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert HALF not in {one.name for one in find_leftovers(open_storage(out))}
    (out / ".mine.tmp").write_bytes(b"a user's")
    found = {one.name for one in find_leftovers(open_storage(out))}
    assert HALF in found
    assert ".mine.tmp" not in found


def test_clean_follows_no_link(out: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "data").mkdir(parents=True)
    (tmp_path / "elsewhere" / "data" / "keep.txt").write_text("keep")
    shutil.rmtree(out / "_codectok/tmp")
    (out / "_codectok/tmp").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        find_leftovers(open_storage(out))
    assert (tmp_path / "elsewhere" / "data" / "keep.txt").exists()
