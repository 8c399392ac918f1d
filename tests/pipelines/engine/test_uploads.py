"""Uploads in parts that killed processes leave in S3: the next run removes its own, and touches no other run's."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import soundfile

from codectok.pipelines.engine import lock as lock_module
from codectok.pipelines.engine.cleaning import find_leftovers
from codectok.pipelines.engine.output.folder import OutputFolder, clear_temporaries
from codectok.pipelines.engine.uploads import unfinished_uploads
from codectok.storage import Storage, open_storage
from tests.helpers.audio import tone
from tests.helpers.jobs import LOCAL, digests, run, shard_command, shard_job
from tests.helpers.storage import store_environment

WAIT_SECONDS = 60.0
# `codectok` on a connection so slow that no part of a file arrives, with parts so small that every file has some.
SLOW_CODECTOK = """
import asyncio, s3fs.core
async def upload_for_ever(*arguments, **options):
    await asyncio.sleep(3600)
s3fs.core.calculate_chunksize = lambda size, chunksize=None: max(1, size // 2)
s3fs.core.S3FileSystem._upload_file_part_concurrent = upload_for_ever
from codectok.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "speech"
    folder.mkdir()
    for number in range(3):
        soundfile.write(folder / f"{number}.flac", tone(15.0, 24_000, 300, number), 24_000)
    return folder


@pytest.fixture
def killed(recordings: Path, s3: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """Output of a job that was killed in the middle of an upload, and whose lease is over."""
    monkeypatch.setattr(lock_module, "SETTLE_SECONDS", 0.01)
    url = f"{s3}/{request.node.name}"
    for name, value in store_environment().items():
        monkeypatch.setenv(name, value)  # for units that are run with care, in a process of their own
    storage = open_storage(url)
    command = [sys.executable, "-c", SLOW_CODECTOK]
    command += shard_command(recordings, Path("/"), "--engine", "local")[3:]
    command[command.index("/")] = url
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + WAIT_SECONDS
        while not unfinished_uploads(storage):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
    storage.remove("_codectok/locks")
    storage.remove("_codectok/runs")
    yield url
    storage.remove("")


def begin_upload(storage: Storage, name: str) -> None:
    key = storage.url.removeprefix("s3://corpora/")
    fsspec.filesystem("s3").call_s3("create_multipart_upload", Bucket="corpora", Key=f"{key}/{name}")


def names(storage: Storage) -> set[str]:
    return {upload.name for upload in unfinished_uploads(storage)}


def test_run_removes_its_own_uploads_only(s3: str) -> None:
    """Of its attempts and of its units; at the end of the job all of its output, but none of another one inside it."""
    storage = open_storage(f"{s3}/own-uploads")
    own = {
        "_codectok/tmp/part-1-of-2/000000-1-a/shard-000000.tar",
        "shard-000000.tar",
        "_codectok/rejects/000002.parquet",
    }
    others = {"_codectok/tmp/part-1-of-20/000000-1-a/x.tar", "_codectok/tmp/part-2-of-2/000001-1-a/x.tar"}
    others |= {"shard-000001.tar", "_codectok/records/000001.json"}
    nested = {"length-8/part-000000.parquet", "length-8/_codectok/tmp/part-1-of-2/000000-1-a/x.tar"}
    storage.write("length-8/_codectok/plan.json", b"of another job")
    for name in (*own, *others, *nested):
        begin_upload(storage, name)
    folder = OutputFolder(storage, "part-1-of-2")
    folder.clear_unrecorded([0, 2])
    folder.clear_attempts()
    assert names(storage) == others | nested
    clear_temporaries(storage)
    assert names(storage) == nested


@pytest.mark.slow
def test_next_run_removes_uploads_of_its_killed_predecessor(killed: str, recordings: Path, tmp_path: Path) -> None:
    """But not the ones of other outputs and, as long as units are missing, of other shares."""
    storage = open_storage(killed)
    (left,) = names(storage)
    assert left.startswith("_codectok/tmp/whole/000000-1-")
    others = {"_codectok/tmp/part-1-of-2/000001-1-a/shard-000001.tar", "shard-000099.tar"}
    nested = {"inner/_codectok/tmp/whole/000000-1-a/x.tar", "inner/shard-000000.tar"}
    storage.write("inner/_codectok/plan.json", b"of another job")
    for name in (*others, *nested, "shard-000000.tar", "_codectok/rejects/000000.parquet"):
        begin_upload(storage, name)
    begin_upload(open_storage(f"{killed}-2"), "shard-000000.tar")
    run(shard_job(), recordings, killed, replace(LOCAL, limit=1))
    assert names(storage) == others | nested
    assert {one.name for one in find_leftovers(storage) if one.kind == "uploads"} == others
    run(shard_job(), recordings, killed)
    assert names(storage) == nested
    assert len(unfinished_uploads(open_storage(f"{killed}-2"))) == 1
    run(shard_job(), recordings, tmp_path / "local")
    for name in digests(tmp_path / "local"):
        if name.endswith(".tar") or name == "shards.json":
            assert storage.read(name) == (tmp_path / "local" / name).read_bytes()


def test_job_without_the_right_to_list_uploads_goes_on(
    recordings: Path, s3: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lock_module, "SETTLE_SECONDS", 0.01)

    def refuse(*arguments: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr("codectok.pipelines.engine.uploads.unfinished_uploads", refuse)
    assert run(shard_job(), recordings, f"{s3}/without-right").summary.complete
    assert "does not list its unfinished uploads" in caplog.text
