"""Copies of sources go on, changed ones are rejected, and tried again once they are as planned."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from codectok.errors import InputError
from codectok.pipelines import run_job, verify_output
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.output.records import Counts, UnitRecord
from codectok.pipelines.engine.planning.plan import Plan
from codectok.pipelines.engine.progress import NullProgress
from codectok.pipelines.engine.run import JobReport
from codectok.pipelines.shard.job import ShardJob
from codectok.pipelines.shard.options import ShardOptions
from codectok.sources.contents import BLOCK_BYTES, BLOCKS, content_in_store, content_of_file
from codectok.sources.rejects import read_rejects
from codectok.storage import open_storage
from tests.helpers.audio import tone
from tests.helpers.jobs import content_of

LOCAL = RunOptions(engine="local", max_rejects=1.0)
FILES = 4


def audio_bytes(number: int, form: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(5, 16_000, 200 + 20 * number, seed=number), 16_000, format=form)
    return buffer.getvalue()


def write_files(folder: Path) -> None:
    for number in range(FILES):
        (folder / f"s{number}.wav").write_bytes(audio_bytes(number))


def write_tars(folder: Path) -> None:
    for number in range(FILES):
        with tarfile.open(folder / f"s{number}.tar", "w") as tar:
            for member in range(2):
                data = audio_bytes(2 * number + member, "FLAC")
                info = tarfile.TarInfo(f"m{member}.flac")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def write_tables(folder: Path) -> None:
    column = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for number in range(FILES):
        clips = [{"bytes": audio_bytes(2 * number + row), "path": None} for row in range(2)]
        pq.write_table(pa.table({"audio": pa.array(clips, column)}), folder / f"s{number}.parquet")


def write_manifest(folder: Path) -> None:
    write_files(folder)
    rows = (f'{{"path": "s{n}.wav", "start": {s}, "end": {s + 2}}}\n' for n in range(FILES) for s in (0, 2))
    (folder / "all.jsonl").write_text("".join(rows))


WRITERS = {"files": write_files, "tars": write_tars, "tables": write_tables, "manifest": write_manifest}


@pytest.fixture(params=WRITERS)
def corpus(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    WRITERS[request.param](folder)
    return folder


class Missing(NullProgress):
    """Stops a run once it is planned, with a file of it deleted."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def planned(self, plan: Plan, done: Sequence[UnitRecord], to_do: Sequence[int]) -> None:
        self._path.unlink()
        raise InputError("stopped between plan and run")


def shard(
    folder: Path,
    output: Path,
    deduplicate: bool = False,
    progress: NullProgress | None = None,
    limit: int | None = None,
) -> JobReport:
    manifest = folder / "all.jsonl"
    job = ShardJob(ShardOptions(shard_seconds=2, min_seconds=0.5, deduplicate=deduplicate))
    source = manifest if manifest.exists() else folder
    return run_job(job, [f"in={source}"], output, replace(LOCAL, limit=limit), progress)


def hashes(output: Path) -> dict[str, str]:
    """Hashes of all files that tell of the output, without plan, locks and runs."""
    kept = ("_codectok/plan", "_codectok/locks", "_codectok/runs", "_codectok/summary.json", "_codectok/first-pass")
    files = (path for path in sorted(output.rglob("*")) if path.is_file())
    named = ((path.relative_to(output).as_posix(), path) for path in files)
    return {name: hashlib.sha256(content_of(path)).hexdigest() for name, path in named if not name.startswith(kept)}


def reasons(output: Path) -> list[str]:
    return [reject.reason for reject in read_rejects(open_storage(output))]


def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix != ".jsonl")


def copy(folder: Path) -> None:
    """Replace a corpus by a copy with new times and inodes."""
    shutil.copytree(folder, folder.parent / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(folder)
    (folder.parent / "copy").rename(folder)


def touch(folder: Path) -> None:
    for path in sources(folder):
        os.utime(path, (1, 1))


@pytest.mark.parametrize("change", [copy, touch])
def test_copied_corpus_goes_on(corpus: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    shard(corpus, tmp_path / "whole")
    assert reasons(tmp_path / "whole") == []
    assert not shard(corpus, tmp_path / "out", limit=1).summary.complete
    change(corpus)
    report = shard(corpus, tmp_path / "out")
    assert report.summary.complete
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")
    verify_output(open_storage(tmp_path / "out"))


def test_moved_corpus_is_compared_by_content(corpus: Path, tmp_path: Path) -> None:
    assert not shard(corpus, tmp_path / "out", limit=1).summary.complete
    corpus.rename(tmp_path / "elsewhere")
    last = sources(tmp_path / "elsewhere")[-1]
    data = last.read_bytes()
    last.write_bytes(other_end(data))
    shard(tmp_path / "elsewhere", tmp_path / "out")
    assert set(reasons(tmp_path / "out")) == {"changed"}


def other_end(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def other_middle(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(255 - byte for byte in data[middle : middle + 20_000]) + data[middle + 20_000 :]


CHANGES: dict[str, Callable[[bytes], bytes | None]] = {
    "beginning": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "middle": other_middle,
    "end": other_end,
    "longer": lambda data: data + b"x",
    "shorter": lambda data: data[:-1],
    "empty": lambda data: b"",
    "missing": lambda data: None,
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_source_is_rejected_and_tried_again(corpus: Path, tmp_path: Path, change: str) -> None:
    shard(corpus, tmp_path / "whole")
    assert not shard(corpus, tmp_path / "out", limit=1).summary.complete
    last = sources(corpus)[-1]
    before = last.read_bytes()
    after = CHANGES[change](before)
    if after is None:
        last.unlink()
    else:
        last.write_bytes(after)
    report = shard(corpus, tmp_path / "out")
    assert report.summary.complete
    rejected = hashes(tmp_path / "out")
    assert set(reasons(tmp_path / "out")) == {"changed"}
    assert shard(corpus, tmp_path / "out").new_units == 0
    assert hashes(tmp_path / "out") == rejected
    last.write_bytes(before)
    report = shard(corpus, tmp_path / "out")
    assert report.new_units > 0
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")
    verify_output(open_storage(tmp_path / "out"))
    assert shard(corpus, tmp_path / "out").new_units == 0


def test_duplicates_are_found_again_once_a_source_is_back(tmp_path: Path) -> None:
    """The first copy is missing while its duplicate is written."""
    corpus = tmp_path / "in"
    corpus.mkdir()
    for name, number in {"a": 1, "b": 2, "c": 1, "d": 3}.items():
        (corpus / f"{name}.wav").write_bytes(audio_bytes(number))
    shard(corpus, tmp_path / "whole", deduplicate=True)
    assert sorted(reasons(tmp_path / "whole")) == ["duplicate"]
    first = corpus / "a.wav"
    data = first.read_bytes()
    out = tmp_path / "out"
    with pytest.raises(InputError, match="between plan and run"):
        shard(corpus, out, deduplicate=True, progress=Missing(first))
    shard(corpus, out, deduplicate=True)
    assert sorted(reasons(out)) == ["changed"]
    first.write_bytes(data)
    shard(corpus, out, deduplicate=True)
    assert hashes(out) == hashes(tmp_path / "whole")
    verify_output(open_storage(out))


def test_changed_sources_count_as_errors() -> None:
    assert Counts(rejects={"changed": 2, "unreachable": 1, "too_short": 5}).errors == 3


@pytest.mark.parametrize("size", [1, 100, BLOCK_BYTES * BLOCKS, BLOCK_BYTES * BLOCKS + 1, 1_000_000])
def test_content_tells_changes_of_a_block(size: int, tmp_path: Path) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    path = tmp_path / "file"

    def content_of(data: bytes) -> int | None:
        path.write_bytes(data)
        return content_of_file(path, len(data))

    first = content_of(data)
    assert first == content_of(data)
    longest_gap = size // (BLOCKS - 1) - BLOCK_BYTES if size > BLOCKS * BLOCK_BYTES else 0
    for start in range(0, size, max(1, size // 7)):
        end = min(size, start + longest_gap + 2)
        assert content_of(data[:start] + bytes(255 - b for b in data[start:end]) + data[end:]) != first
    assert content_of_file(tmp_path / "missing", 5) is None
    assert content_of_file(tmp_path, 5) is None


def test_content_in_store_is_its_hash() -> None:
    assert content_in_store({"ETag": '"a"', "size": 3}) == content_in_store({"ETag": '"a"', "size": 4})
    assert content_in_store({"ETag": '"a"'}) != content_in_store({"ETag": '"b"'})
    assert content_in_store({"size": 3}) is None
