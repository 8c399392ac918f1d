"""Remote sources and outputs: in memory, and in a local S3 server."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codectok import Codec, CodectokError, InputError
from codectok.pipelines.engine import lock as lock_module
from codectok.pipelines.engine.lock import entry, lock_job
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.output.folder import OutputFolder
from codectok.pipelines.engine.planning import start as start_module
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.export.compact import CompactJob, CompactOptions
from codectok.pipelines.tokenize.job import TokenizeJob
from codectok.pipelines.tokenize.options import TokenizeOptions
from codectok.pipelines.tokenize.reencode import reencode
from codectok.pipelines.verify.output import verify_output
from codectok.sources.clips import clips_of
from codectok.sources.listing.arguments import parse_arguments
from codectok.sources.listing.ordering import ordered_sources
from codectok.sources.listing.sources import list_sources
from codectok.sources.rejects import Reject
from codectok.storage import RemoteStorage, Storage, open_storage
from codectok.tokens.reader import open_table
from tests.helpers.jobs import LOCAL, digests, run, shard_job
from tests.helpers.storage import upload


def remote_digests(storage: Storage) -> dict[str, bytes]:
    names = (name for name in storage.sizes() if "/locks/" not in name and "/runs/" not in name)
    return {name: storage.read(name) for name in names}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "SETTLE_SECONDS", 0.05)


@pytest.fixture
def memory() -> Iterator[str]:
    url = f"memory://test-{uuid.uuid4().hex}"
    yield url
    open_storage(url).remove("")


def check_remote_shards(url: str, corpus: Path, tmp_path: Path) -> None:
    """A remote corpus gives the same shards as a local one, in a remote folder as in a local one."""
    run(shard_job(), corpus, tmp_path / "local")
    source = upload(corpus, f"{url}/speech")
    stopped = run(shard_job(), source, f"{url}/out", replace(LOCAL, limit=2))
    assert stopped.summary.units == 2
    report = run(shard_job(), source, f"{url}/out")
    assert report.summary.complete
    assert run(shard_job(), source, f"{url}/out").new_units == 0
    storage = open_storage(f"{url}/out")
    assert verify_output(storage).rows == report.summary.total.rows
    expected = set(digests(tmp_path / "local"))
    assert set(remote_digests(storage)) == expected
    for name in expected:
        if name.endswith(".tar") or "/index/" in name or name == "shards.json":
            assert storage.read(name) == (tmp_path / "local" / name).read_bytes(), name
    run(shard_job(), f"{url}/speech/sub folder/*.mp3", tmp_path / "some")
    (tmp_path / "list.jsonl").write_text(json.dumps({"path": f"{url}/speech/a.wav", "start": 0.5, "end": 2.9}))
    assert run(shard_job(), tmp_path / "list.jsonl", tmp_path / "listed").summary.total.rows == 1
    with pytest.raises(InputError, match="another job"):
        run(shard_job(max_seconds=8.0), source, f"{url}/out")


def test_shards_in_memory(memory: str, corpus: Path, tmp_path: Path) -> None:
    check_remote_shards(memory, corpus, tmp_path)


def test_shards_in_object_store(s3: str, corpus: Path, tmp_path: Path) -> None:
    check_remote_shards(s3, corpus, tmp_path)


def test_token_table_in_object_store(s3: str, codec_folder: Path, corpus: Path, tmp_path: Path) -> None:
    job = TokenizeJob(TokenizeOptions(str(codec_folder), device="cpu"))
    run(job, corpus, tmp_path / "tokens")
    run(job, corpus, url := f"{s3}/tokens")
    here, there = open_table(tmp_path / "tokens"), open_table(url)
    assert [row.id for row in there] == [row.id for row in here]
    last = here.row(len(here) - 1)
    np.testing.assert_array_equal(there[last.id].codes, last.codes)
    assert len(list(there.to_torch_dataset())) == len(here)
    codec = Codec.from_pretrained(codec_folder, device="cpu")
    assert reencode(url, codec, 3).exact
    run(CompactJob(CompactOptions(), url), url, tmp_path / "compact")
    run(CompactJob(CompactOptions(), str(tmp_path / "tokens")), tmp_path / "tokens", there_too := f"{s3}/compact")
    for compact in (tmp_path / "compact", there_too):
        assert [row.id for row in open_table(compact)] == [row.id for row in here]
        assert verify_output(open_storage(compact)).rows == len(here)
    with pytest.raises(InputError, match="holds no Parquet file"):
        open_table(f"{s3}/speech")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        open_table(f"{s3}/nothing.parquet")


@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
def test_containers_in_object_store(s3: str, suffix: str, tmp_path: Path) -> None:
    from tests.helpers.tars import write_tar

    from .test_containers import members, write_parquet

    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / f"a{suffix}"
    if suffix == ".tar":
        write_tar(path, members(5))
    else:
        write_parquet(path, 5)
    url = upload(tmp_path / "in", f"{s3}/containers{suffix[1:]}")
    assert run(shard_job(), url, tmp_path / "out").summary.total.rows == 5


def test_lease_excludes_others_until_it_expires(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(memory)
    with entry(storage):
        lock = lock_job(storage, None)
    with entry(storage), pytest.raises(InputError, match="is being written by process"):
        lock_job(storage, None)
    lock.check()
    monkeypatch.setattr(lock_module, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(lock_module, "LOOK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(lock_module, "LEASE_SECONDS", 0.2)
    time.sleep(0.3)
    with entry(storage):
        other = lock_job(storage, None)
    monkeypatch.setattr(lock_module, "LEASE_SECONDS", 90.0)
    with pytest.raises(CodectokError, match="Another process has taken the lease"):
        lock.check()
    lock.release()
    other.check()
    other.release()


def test_plan_is_not_stored_after_the_lease_was_lost(
    memory: str, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing may take hours."""
    storage = open_storage(memory)

    def slow_listing(*arguments: Any, **options: Any) -> Any:
        (name,) = (name for name in storage.sizes() if name.endswith("/entry"))
        lease = json.loads(storage.read(name))
        storage.write(name, json.dumps({**lease, "token": "other"}).encode())
        return list_sources(*arguments, **options)

    monkeypatch.setattr(start_module, "list_sources", slow_listing)
    with pytest.raises(CodectokError, match="Another process has taken the lease"):
        run(shard_job(), corpus, memory)
    assert not [name for name in storage.sizes() if "plan" in name]


def test_attempts_of_killed_run_are_found(memory: str) -> None:
    storage = open_storage(memory)
    died = OutputFolder(storage, "whole")
    with suppress(KeyboardInterrupt), storage.staging(died.attempt(3, 1)):
        raise KeyboardInterrupt
    assert OutputFolder(storage, "whole").clear_attempts() == {3}
    assert storage.sizes() == {}


def test_unreachable_stores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be reached"):
        RemoteStorage("nosuch://x/y")
    with pytest.raises(InputError, match="There are no audio files"):
        run_job(shard_job(), ["memory://nothing-here"], tmp_path / "out", RunOptions(engine="local"))


@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
def test_changed_remote_container_is_rejected(memory: str, suffix: str, tmp_path: Path) -> None:
    from tests.helpers.tars import write_tar

    from .test_containers import members, write_parquet

    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / f"a{suffix}"
    write = (lambda count: write_tar(path, members(count))) if suffix == ".tar" else partial(write_parquet, path)
    write(2)
    (listed,) = ordered_sources(list_sources(*parse_arguments([upload(tmp_path / "in", memory)]), ("tar", "parquet")))
    assert len(list(clips_of(listed))) == 2
    write(4)
    upload(tmp_path / "in", memory)
    (found,) = clips_of(listed)
    assert isinstance(found, Reject)
    assert "has changed" in found.message


def test_remote_container_with_new_time_is_rejected(s3: str, tmp_path: Path) -> None:
    from tests.helpers.tars import write_tar

    from .test_containers import members

    (tmp_path / "in").mkdir()
    write_tar(tmp_path / "in" / "a.tar", members(2))
    url = upload(tmp_path / "in", f"{s3}/changing")
    (listed,) = ordered_sources(list_sources(*parse_arguments([url]), ("tar",)))
    assert len(list(clips_of(listed))) == 2
    time.sleep(1.1)  # stores tell times in whole seconds
    upload(tmp_path / "in", url)
    (found,) = clips_of(listed)
    assert isinstance(found, Reject)
    assert "has changed" in found.message


def test_remote_output_is_not_read(memory: str, corpus: Path) -> None:
    source = upload(corpus / "sub folder", f"{memory}/speech")
    run(shard_job(), source, f"{source}/shards")
    assert run(shard_job(), source, f"{source}/shards", replace(LOCAL, extend=True)).new_units == 0
    assert run(shard_job(), f"{source}/**", f"{source}/others").summary.total.inputs > 2  # those of the first output
    assert run(shard_job(), f"{source}/**", f"{source}/others", replace(LOCAL, extend=True)).new_units == 0


def test_other_remote_corpus_of_same_name_is_refused(memory: str, corpus: Path, tmp_path: Path) -> None:
    one, two = upload(corpus, f"{memory}/one/speech"), upload(corpus, f"{memory}/two/speech")
    run(shard_job(), one, tmp_path / "out")
    for other in (two, corpus):
        with pytest.raises(InputError, match=f"'speech' .*{one}.*{other}"):
            run(shard_job(), other, tmp_path / "out")
    open_storage(one).remove("")
    assert run(shard_job(), two, tmp_path / "out").new_units == 0
