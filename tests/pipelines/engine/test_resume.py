"""Stopping and resuming: the output equals that of one clean run."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from codectok import CodectokError, InputError
from codectok.atomic import replacing
from codectok.pipelines.engine.lock import JobShare, entry, lock_job, make_lock
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.preview import preview_job
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.shard.job import ShardJob
from codectok.pipelines.shard.options import ShardOptions
from codectok.pipelines.verify.output import verify_output
from codectok.shards import read_manifest
from codectok.storage import LocalStorage, open_storage
from tests.helpers.hooked_jobs import BeforeUnits
from tests.helpers.jobs import LOCAL, UNIT_SECONDS, digests, rejects, run, shard_command, shard_job
from tests.helpers.tars import all_samples


@pytest.fixture(scope="module")
def clean(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the output of one clean run."""
    folder = tmp_path_factory.mktemp("clean") / "out"
    run(shard_job(), corpus, folder)
    return digests(folder)


class StoppingJob(BeforeUnits, ShardJob):
    """Raises an error before a unit, and leaves a file behind."""

    def __init__(self, error: BaseException, unit: int = 1) -> None:
        super().__init__(ShardOptions(shard_seconds=UNIT_SECONDS))
        self.error, self.unit = error, unit

    def before(self, unit: Unit, output: UnitOutput) -> None:
        (output.folder / "half.tar").write_bytes(b"half")
        if unit.number == self.unit:
            raise self.error
        (output.folder / "half.tar").unlink()


def test_finished_job_runs_no_units(corpus: Path, tmp_path: Path, clean: dict[str, str]) -> None:
    first = run(shard_job(), corpus, tmp_path / "out")
    again = run(shard_job(), corpus, tmp_path / "out")
    assert first.new_units == first.summary.units > 1
    assert again.new_units == 0
    assert again.summary == first.summary
    assert digests(tmp_path / "out") == clean


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=repr)
def test_stopped_job_resumes(error: BaseException, corpus: Path, tmp_path: Path, clean: dict[str, str]) -> None:
    with pytest.raises(type(error)):
        run(StoppingJob(error, unit=2), corpus, tmp_path / "out")
    assert not (tmp_path / "out" / "_codectok" / "tmp").exists() or not any(
        (tmp_path / "out" / "_codectok" / "tmp").iterdir()
    )
    assert [path.name for path in sorted((tmp_path / "out").glob("*.tar"))] == ["shard-000000.tar", "shard-000001.tar"]
    assert not (tmp_path / "out" / "shards.json").exists()
    report = run(shard_job(), corpus, tmp_path / "out")
    assert report.new_units == report.summary.units - 2
    assert digests(tmp_path / "out") == clean


def test_damaged_units_are_made_again(corpus: Path, tmp_path: Path, clean: dict[str, str]) -> None:
    out = tmp_path / "out"
    run(shard_job(), corpus, out)
    (out / "shard-000000.tar").write_bytes(b"short")
    (out / "_codectok" / "records" / "000001.json").write_text("{")
    (out / "_codectok" / "records" / "000002.json").unlink()
    assert run(shard_job(), corpus, out).new_units == 3
    assert digests(out) == clean


def test_failed_unit_does_not_stop_other_units(corpus: Path, tmp_path: Path, clean: dict[str, str]) -> None:
    with pytest.raises(CodectokError, match=r"1 of \d+ units failed \(1; the first: ZeroDivisionError"):
        run(StoppingJob(ZeroDivisionError("x")), corpus, tmp_path / "out")
    assert not (tmp_path / "out" / "shards.json").exists()
    assert run(shard_job(), corpus, tmp_path / "out").new_units == 1
    assert digests(tmp_path / "out") == clean


def test_other_job_is_refused_with_difference(corpus: Path, tmp_path: Path) -> None:
    run(shard_job(), corpus, tmp_path / "out", replace(LOCAL, limit=1))
    with pytest.raises(InputError, match=r"max-seconds was 10\.0 and is 8\.0"):
        run(shard_job(max_seconds=8.0), corpus, tmp_path / "out")
    (tmp_path / "more").mkdir()
    shutil.copy(corpus / "a.wav", tmp_path / "more")
    with pytest.raises(InputError, match=r"sources differ \(new more\); add --extend"):
        run_job(shard_job(), [str(corpus), str(tmp_path / "more")], tmp_path / "out", LOCAL)
    with pytest.raises(InputError, match=r"new more; without speech"):
        run(shard_job(), tmp_path / "more", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="holds other files"):
        run(shard_job(), corpus, tmp_path / "full")


def test_failed_start_leaves_no_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="There are no audio files"):
        run(shard_job(), tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_corpus_can_move_between_runs(corpus: Path, tmp_path: Path, clean: dict[str, str]) -> None:
    shutil.copytree(corpus, tmp_path / "speech")
    run(shard_job(), tmp_path / "speech", tmp_path / "out", replace(LOCAL, limit=1))
    shutil.copytree(tmp_path / "speech", tmp_path / "elsewhere" / "speech", copy_function=shutil.copy)
    shutil.rmtree(tmp_path / "speech")
    run(shard_job(), tmp_path / "elsewhere" / "speech", tmp_path / "out")
    tars = {name: digest for name, digest in digests(tmp_path / "out").items() if name.endswith(".tar")}
    assert tars == {name: digest for name, digest in clean.items() if name.endswith(".tar")}


def test_limits_and_parts_add_up(corpus: Path, tmp_path: Path, clean: dict[str, str]) -> None:
    for number in range(1, 4):
        assert run(shard_job(), corpus, tmp_path / "limits", replace(LOCAL, limit=1)).summary.units == number
    run(shard_job(), corpus, tmp_path / "limits")
    assert digests(tmp_path / "limits") == clean
    for index in (3, 1, 2):
        assert not (tmp_path / "parts" / "shards.json").exists()
        run(shard_job(), corpus, tmp_path / "parts", replace(LOCAL, part=JobShare(index, 3)))
    assert digests(tmp_path / "parts") == clean


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_invalid_parts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="A part is i/n"):
        JobShare.parse(text)


def test_extend_adds_units_and_changes_none(corpus: Path, tmp_path: Path) -> None:
    source = tmp_path / "speech"
    shutil.copytree(corpus, source)
    shutil.rmtree(source / "sub folder")
    out = tmp_path / "out"
    run(shard_job(), source, out)
    before = {name: digest for name, digest in digests(out).items() if name.endswith(".tar")}
    shutil.copytree(corpus / "sub folder", source / "sub folder")
    assert run(shard_job(), source, out).new_units == 0
    assert preview_job(shard_job(), [str(source)], out, replace(LOCAL, extend=True)).units > len(before)
    report = run(shard_job(), source, out, replace(LOCAL, extend=True))
    after = digests(out)
    assert report.new_units == 2
    assert {name: after[name] for name in before} == before
    manifest = read_manifest(open_storage(out))
    assert [entry.name for entry in manifest.shards] == sorted(name for name in after if name.endswith(".tar"))
    assert run(shard_job(), source, out).new_units == 0
    assert run(shard_job(), source, out, replace(LOCAL, extend=True)).new_units == 0


def test_dry_run_writes_nothing(corpus: Path, tmp_path: Path) -> None:
    preview = preview_job(shard_job(), [str(corpus)], tmp_path / "out", LOCAL)
    assert (preview.sources, preview.ignored, preview.finished_units) == (12, 1, 0)
    assert 30 < preview.estimated_seconds < 60
    assert not (tmp_path / "out").exists()


def test_too_many_broken_inputs_fail(corpus: Path, tmp_path: Path, clean: dict[str, str]) -> None:
    for _ in range(2):
        with pytest.raises(CodectokError, match="3 of 12 inputs are broken"):
            run(shard_job(), corpus, tmp_path / "out", RunOptions(engine="local"))
        assert not (tmp_path / "out" / "shards.json").exists()
    assert run(shard_job(), corpus, tmp_path / "out").new_units == 0
    assert digests(tmp_path / "out") == clean


def test_too_little_space_is_refused(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStorage, "free_bytes", lambda _: 1000)
    with pytest.raises(InputError, match="free space"):
        run(shard_job(), corpus, tmp_path / "out")
    run(shard_job(), corpus, tmp_path / "out", replace(LOCAL, check_space=False))


def test_lock_excludes_overlapping_runs(corpus: Path, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "out")
    with entry(storage):
        lock = lock_job(storage, None)
    for part in (None, JobShare(1, 2)):
        with pytest.raises(InputError, match=rf"written by process {os.getpid()} on"):
            run(shard_job(), corpus, tmp_path / "out", replace(LOCAL, part=part))
    lock.release()
    with entry(storage):
        lock = lock_job(storage, JobShare(1, 2))
    for part in (None, JobShare(1, 2), JobShare(2, 3)):
        with pytest.raises(InputError, match="is being written by"):
            run(shard_job(), corpus, tmp_path / "out", replace(LOCAL, part=part))
    run(shard_job(), corpus, tmp_path / "out", replace(LOCAL, part=JobShare(2, 2)))
    lock.release()


def test_changed_sources_are_rejected(corpus: Path, tmp_path: Path) -> None:
    source = tmp_path / "speech"
    shutil.copytree(corpus, source)
    run(shard_job(), source, tmp_path / "out", replace(LOCAL, limit=1))
    os.utime(source / "b.flac", (1, 1))
    samples = (source / "stereo.wav").read_bytes()
    (source / "stereo.wav").write_bytes(samples[:-1] + b"x")
    with (source / "sub folder" / "d.mp3").open("ab") as file:
        file.write(b"x")
    report = run(shard_job(), source, tmp_path / "out")
    changed = [row["source"] for row in rejects(tmp_path / "out") if "has changed" in str(row["message"])]
    assert changed == ["stereo.wav", "sub folder/d.mp3"]
    assert report.summary.total.rejects["changed"] == 2


def test_swallowed_interrupt_stops_after_the_unit(corpus: Path, tmp_path: Path) -> None:
    script = (
        "import signal, sys; from codectok.cli import jobs, main; from codectok.pipelines.shard.job import ShardJob\n"
        "start = ShardJob.start\n"
        "def swallowing(job, context):\n"
        "    run = start(job, context)\n"
        "    def run_unit(unit, output):\n"
        "        try:\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "        except KeyboardInterrupt:\n"
        "            run(unit, output)\n"
        "    return run_unit\n"
        "ShardJob.start = swallowing; main.main()"
    )
    arguments = [sys.executable, "-c", script, *shard_command(corpus, tmp_path / "out", "--engine", "local")[3:]]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 130, result.stderr
    assert "1 of" in result.stderr and "run the same command again" in result.stderr


def test_missing_manifest_is_made_again(corpus: Path, tmp_path: Path, clean: dict[str, str]) -> None:
    out = tmp_path / "out"
    run(shard_job(), corpus, out)
    (out / "shards.json").unlink()
    assert run(shard_job(), corpus, out).new_units == 0
    assert digests(out) == clean


def test_remade_unit_leaves_no_old_files(corpus: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a.wav", "b.flac"):
        shutil.copy(corpus / name, source / name)
    run(shard_job(shard_seconds=1.0), source, out)
    (out / "shard-000001.tar").unlink()
    (source / "b.flac").write_bytes(b"no audio any more")
    report = run(shard_job(shard_seconds=1.0), source, out)
    assert report.summary.total.rejects == {"changed": 1}
    verify_output(open_storage(out))
    assert len(json.loads((out / "shards.json").read_text())["shards"]) == 1


def has_opened(process: int, path: Path) -> bool:
    """Return True if a process has the file `path` open at this moment."""
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):
            if descriptor.readlink() == path:
                return True
    return False


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are looked at in /proc")
def test_interrupted_waiting_run_deletes_nothing(corpus: Path, tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "out")
    waiting = None
    with entry(storage):
        storage.write("_codectok/plan/000-sources.parquet", b"being planned")
        arguments = shard_command(corpus, tmp_path / "out", "--engine", "local")
        waiting = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        locks = tmp_path / "out" / "_codectok" / "locks"
        while not has_opened(waiting.pid, locks / "entry"):
            assert waiting.poll() is None
            time.sleep(0.001)
        waiting.send_signal(signal.SIGINT)
        waiting.communicate(timeout=60)
        assert waiting.returncode == 130
        assert storage.read("_codectok/plan/000-sources.parquet") == b"being planned"
        with pytest.raises(BlockingIOError), (locks / "entry").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_lock_is_acquired_after_its_file_is_deleted(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    first, second, third = (make_lock(storage, "entry") for _ in range(3))
    assert first.acquire() is None
    storage.remove("_codectok")
    first.release()
    assert second.acquire() is None
    assert third.acquire() is not None
    second.release()


def test_vanishing_files_are_skipped_in_listing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert open_storage(tmp_path).sizes() == {"a": 1}


def test_concurrent_writes_of_one_file_are_atomic(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def write(number: int) -> None:
        for _ in range(50):
            with replacing(path) as temporary:
                temporary.write_bytes(bytes([number]) * 1000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(set(path.read_bytes())) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_corpus_without_audio_fails(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "noise.xyz").write_bytes(b"no audio")
    with pytest.raises(CodectokError, match="none of the 1 files is audio"):
        run(shard_job(), tmp_path / "in", tmp_path / "out")


def test_dry_run_counts_units_of_limit_and_part(corpus: Path, tmp_path: Path) -> None:
    job = shard_job()
    whole = preview_job(job, [str(corpus)], tmp_path / "out", LOCAL)
    some = preview_job(job, [str(corpus)], tmp_path / "out", replace(LOCAL, limit=1))
    part = preview_job(job, [str(corpus)], tmp_path / "out", replace(LOCAL, part=JobShare(1, 2)))
    assert (whole.units_to_do, some.units_to_do, part.units_to_do) == (4, 1, 2)
    assert 0 < some.estimated_seconds < whole.estimated_seconds


def test_job_does_not_read_its_output(corpus: Path, tmp_path: Path) -> None:
    source = tmp_path / "speech"
    shutil.copytree(corpus, source)
    out = source / "shards"
    run(shard_job(), source, out)
    shutil.copy(corpus / "a.wav", source / "new.wav")
    options = replace(LOCAL, extend=True)
    before = preview_job(shard_job(), [str(source)], out, LOCAL)
    assert preview_job(shard_job(), [str(source)], out, options).sources == before.sources + 1
    assert run(shard_job(), source, out, options).new_units == 1
    assert {sample.source for sample, _ in all_samples(out)} & {"new.wav", "shards"} == {"new.wav"}
    assert not any("shards/" in sample.source for sample, _ in all_samples(out))


def test_other_corpus_of_same_name_is_refused(corpus: Path, tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place / "wav").mkdir(parents=True)
        shutil.copy(corpus / "a.wav", tmp_path / place / "wav" / "1.wav")
    one, two, out = tmp_path / "one" / "wav", tmp_path / "two" / "wav", tmp_path / "out"
    run(shard_job(), one, out)
    for options in (LOCAL, replace(LOCAL, extend=True)):
        for act in (run_job, preview_job):
            with pytest.raises(InputError, match=rf"'wav' .*{one}.*{two}.*=SOURCE"):
                act(shard_job(), [str(two)], out, options)
    assert run_job(shard_job(), [str(one), f"other={two}"], out, replace(LOCAL, extend=True)).new_units == 1
    (tmp_path / "link").symlink_to(tmp_path / "one")
    again = ["wav=" + str(tmp_path / "link" / "wav"), f"other={two}"]
    assert run_job(shard_job(), again, out, LOCAL).new_units == 0
    (one / "1.wav").rename(tmp_path / "1.wav")
    assert run_job(shard_job(), [f"wav={two}", f"other={two}"], out, LOCAL).new_units == 0  # an empty folder is left


def test_other_manifest_of_same_name_is_refused(corpus: Path, tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "list.jsonl").write_text(f'{{"path": "{corpus}/a.wav"}}\n')
    run(shard_job(), tmp_path / "one" / "list.jsonl", tmp_path / "out")
    with pytest.raises(InputError, match="choose another output folder"):
        run(shard_job(), tmp_path / "two" / "list.jsonl", tmp_path / "out")
    (tmp_path / "one" / "list.jsonl").unlink()
    assert run(shard_job(), tmp_path / "two" / "list.jsonl", tmp_path / "out").new_units == 0


def test_moved_and_grown_corpus_is_not_rejected(corpus: Path, tmp_path: Path) -> None:
    source = tmp_path / "one" / "speech"
    shutil.copytree(corpus, source)
    run(shard_job(), source, tmp_path / "out", replace(LOCAL, limit=1))
    moved = tmp_path / "two" / "speech"
    shutil.copytree(source, moved, copy_function=shutil.copyfile)
    shutil.rmtree(source)
    shutil.copy(corpus / "a.wav", moved / "new.wav")
    for options in (replace(LOCAL, extend=True, limit=1), LOCAL):
        run(shard_job(), moved, tmp_path / "out", options)
    assert not any("has changed" in str(row["message"]) for row in rejects(tmp_path / "out"))


def test_ignored_files_are_counted_once(corpus: Path, tmp_path: Path) -> None:
    source, more, out = tmp_path / "speech", tmp_path / "more", tmp_path / "out"
    shutil.copytree(corpus, source)
    more.mkdir()
    for name in ("notes.txt", "list.csv"):
        (more / name).write_text("x")
    extend = replace(LOCAL, extend=True)
    ignored = run(shard_job(), source, out).summary.total.ignored
    for number in range(3):
        shutil.copy(corpus / "a.wav", source / f"{number}.wav")
        assert run(shard_job(), source, out, extend).summary.total.ignored == ignored
    shutil.copy(corpus / "a.wav", more)
    assert run(shard_job(), more, out, extend).summary.total.ignored == ignored + 2


def test_extend_without_new_sources_changes_nothing(corpus: Path, tmp_path: Path) -> None:
    run(shard_job(), corpus, tmp_path / "out")
    before = digests(tmp_path / "out")
    run(shard_job(), corpus, tmp_path / "out", replace(LOCAL, extend=True))
    assert digests(tmp_path / "out") == before


def test_half_written_files_are_deleted_at_the_end(corpus: Path, tmp_path: Path, clean: dict[str, str]) -> None:
    out = tmp_path / "out"
    run(shard_job(), corpus, out, replace(LOCAL, limit=1))
    for name in (
        ".shards.json.0a1b2c3d.tmp",
        "_codectok/records/.000001.json.0a1b2c3d.tmp",
        "_codectok/.plan.json.0.tmp",
    ):
        (out / name).write_bytes(b"half of")
    run(shard_job(), corpus, out)
    assert digests(out) == clean
