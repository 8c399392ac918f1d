"""Tars and Parquet files as sources, whole or in ranges."""

from __future__ import annotations

import gzip
import io
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from codectok.audio.files import read_audio
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.verify.output import verify_output
from codectok.sources.clip import Clip
from codectok.sources.clips import clips_of
from codectok.sources.kinds import Kind
from codectok.sources.rejects import Reject
from codectok.sources.source import Source
from codectok.storage import open_storage
from tests.helpers.audio import tone
from tests.helpers.jobs import LOCAL, digests, rejects, run, shard_job
from tests.helpers.tars import all_samples, write_tar


def flac(seconds: float, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(seconds, 16_000, seed=seed), 16_000, format="FLAC")
    return buffer.getvalue()


def members(count: int) -> list[tuple[str, bytes]]:
    found = []
    for number in range(count):
        found.append((f"set/{number:03d}.flac", flac(2.5 + number % 3, number)))
        found.append((f"set/{number:03d}.json", json.dumps({"text": f"words {number}", "lang": "en"}).encode()))
    return found


def source(path: Path, first: int | None = None, last: int | None = None) -> Source:
    kind: Kind = "parquet" if path.suffix == ".parquet" else "tar"
    return Source("d", str(path.parent), path.name, kind, path.stat().st_size, None, first_byte=first, last_byte=last)


def keys(path: Path, first: int | None = None, last: int | None = None) -> list[str]:
    found = []
    for clip in clips_of(source(path, first, last)):
        assert isinstance(clip, Clip)
        found.append(clip.id)
    return found


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 50])
def test_tar_ranges_yield_every_sample_once(parts: int, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", members(12))
    size = path.stat().st_size
    borders = [size * part // parts for part in range(parts + 1)]
    found = [keys(path, first, last) for first, last in itertools.pairwise(borders)]
    assert list(itertools.chain(*found)) == keys(path)
    assert len(keys(path)) == 12


@pytest.mark.parametrize("parts", [1, 2, 5, 40])
def test_parquet_ranges_yield_every_row_once(parts: int, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", 20)
    size = path.stat().st_size
    borders = [size * part // parts for part in range(parts + 1)]
    found = [keys(path, first, last) for first, last in itertools.pairwise(borders)]
    assert list(itertools.chain(*found)) == keys(path)
    assert len(set(keys(path))) == 20


def write_parquet(path: Path, rows: int) -> Path:
    audio = [{"bytes": flac(2.5 + number % 3, number), "path": f"{number}.flac"} for number in range(rows)]
    table = pa.table({"audio": audio, "sentence": [f"words {n}" for n in range(rows)], "speaker_id": list(range(rows))})
    pq.write_table(table, path, row_group_size=3)
    return path


def test_large_containers_become_several_units(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_tar(tmp_path / "in" / "a.tar", members(12))
    write_parquet(tmp_path / "in" / "b.parquet", 12)
    few = run(shard_job(shard_seconds=3600.0), tmp_path / "in", tmp_path / "few")
    many = run(shard_job(shard_seconds=10.0), tmp_path / "in", tmp_path / "many")
    assert few.summary.units == 2 < many.summary.planned_units

    def content(folder: Path) -> dict[str, tuple[str | None, int]]:
        return {sample.source: (sample.text, sample.n_samples) for sample, _ in all_samples(folder)}

    assert content(tmp_path / "few") == content(tmp_path / "many")
    assert len(content(tmp_path / "few")) == 24
    again = run(shard_job(shard_seconds=10.0), tmp_path / "in", tmp_path / "many")
    assert again.new_units == 0


def test_text_and_labels_of_other_tools_are_kept(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("x.wav", flac(3)),
            ("x.txt", b" spoken words\n"),
            ("y.flac", flac(3)),
            ("y.json", b'{"transcription": "other words", "language": "nl", "speaker_id": 7}'),
        ],
    )
    write_parquet(tmp_path / "b.parquet", 1)
    run(shard_job(), tmp_path, tmp_path / "out")
    by_source = {sample.source: sample for sample, _ in all_samples(tmp_path / "out")}
    assert by_source["a.tar/x.wav"].text == "spoken words"
    y = by_source["a.tar/y.flac"]
    assert (y.text, y.language, y.speaker) == ("other words", "nl", "7")
    row = by_source["b.parquet/0.flac"]
    assert (row.text, row.speaker) == ("words 0", "0")
    assert path.exists()


def test_unusual_tars_yield_readable_samples(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    good = flac(3)
    odd = [
        ("../../escape.flac", good),
        ("/absolute.flac", flac(3, 1)),
        ("a b\n.flac", flac(3, 2)),
        ("two.flac", good),
        ("two.wav", good),
        ("again.flac", flac(3, 3)),
        ("between.txt", b"text"),
        ("again.flac", good),
        (".hidden", b"x"),
    ]
    write_tar(tmp_path / "in" / "odd.tar", odd)
    write_tar(tmp_path / "in" / "packed.tar.gz", members(2), "w:gz")
    (tmp_path / "in" / "cut.tar.gz").write_bytes((tmp_path / "in" / "packed.tar.gz").read_bytes()[:-3000])
    report = run(shard_job(), tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "escape.flac").exists()
    kept = {sample.source for sample, _ in all_samples(tmp_path / "out")}
    assert {"odd.tar/../../escape.flac", "odd.tar/absolute.flac", "odd.tar/again.flac"} <= kept
    assert {"packed.tar.gz/set/000.flac", "packed.tar.gz/set/001.flac", "cut.tar.gz/set/000.flac"} <= kept
    reasons = {row["source"]: row["reason"] for row in rejects(tmp_path / "out")}
    assert reasons["odd.tar/two"] == reasons["odd.tar/again"] == "unsupported"
    assert reasons["cut.tar.gz"] == "unreadable"
    assert report.summary.total.rejects["unreadable"] == 1


def test_shards_can_be_sharded_again(corpus: Path, tmp_path: Path) -> None:
    run(shard_job(), corpus, tmp_path / "first")
    run(shard_job(min_seconds=1.0, max_seconds=3.0), tmp_path / "first", tmp_path / "second")
    found = all_samples(tmp_path / "second")
    assert {sample.dataset for sample, _ in found} == {"speech"}
    pieces = sorted((s.start, audio) for s, audio in found if s.source == "b.flac")
    joined = np.concatenate([audio for _, audio in pieces])
    np.testing.assert_allclose(joined, read_audio(corpus / "b.flac", 24_000), atol=2 / 32_768)


def test_parquet_without_audio_is_ignored_and_broken_parquet_rejected(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_parquet(tmp_path / "in" / "a.parquet", 2)
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "in" / "b.parquet")
    (tmp_path / "in" / "c.parquet").write_bytes(b"PAR1" + gzip.compress(b"no"))
    empty = pa.table({"audio": [{"bytes": None, "path": None}, {"bytes": b"text", "path": "x.wav"}]})
    pq.write_table(empty, tmp_path / "in" / "d.parquet")
    report = run(shard_job(), tmp_path / "in", tmp_path / "out")
    assert report.summary.total.ignored == 1
    assert {row["source"]: row["reason"] for row in rejects(tmp_path / "out")} == {
        "c.parquet": "unreadable",
        "d.parquet/0": "unreadable",
        "d.parquet/1.wav": "unreadable",
    }
    assert digests(tmp_path / "out")


def test_damaged_tar_yields_reject_after_its_samples(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", members(4))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found = list(clips_of(source(path)))
    assert isinstance(found[-1], Reject)
    assert found[-1].reason == "unreadable"
    assert len(found) >= 2


def test_changed_containers_are_rejected(tmp_path: Path) -> None:
    for path in (write_tar(tmp_path / "a.tar", members(2)), write_parquet(tmp_path / "b.parquet", 2)):
        listed = source(path)
        with path.open("ab") as file:
            file.write(b"more")
        (found,) = clips_of(listed)
        assert isinstance(found, Reject)
        assert "has changed" in found.message


def test_extension_skips_containers_that_have_grown(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    write_tar(inside / "a.tar", members(4))
    job = shard_job(shard_seconds=10.0)
    run(job, inside, tmp_path / "out")
    before = sorted(sample.source for sample, _ in all_samples(tmp_path / "out"))
    write_tar(inside / "a.tar", members(60))
    write_tar(inside / "b.tar", members(2))
    report = run(job, inside, tmp_path / "out", replace(LOCAL, extend=True))
    after = sorted(sample.source for sample, _ in all_samples(tmp_path / "out"))
    assert set(before) < set(after) and len(after) == len(set(after))
    assert {
        sample.source.split("/")[0] for sample, _ in all_samples(tmp_path / "out") if sample.source not in before
    } == {"b.tar"}
    assert report.new_units == 1


class CountingFile(io.FileIO):
    """Counts bytes read."""

    count = 0

    def readinto(self, buffer: Any) -> int | None:
        got = super().readinto(buffer)
        CountingFile.count += got or 0
        return got

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        CountingFile.count += len(data or b"")
        return data


def test_tar_range_reads_only_headers_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).bytes(50_000)
    long = "folder-with-a-long-name/" * 8
    path = write_tar(tmp_path / "a.tar", [(f"{long}{number:03d}.wav", noise) for number in range(80)])
    size = path.stat().st_size
    borders = [size * part // 20 for part in range(21)]

    def counting_open(path: Path, mode: str = "r", buffering: int = -1) -> io.BufferedReader:
        return io.BufferedReader(CountingFile(path), buffering if buffering > 0 else io.DEFAULT_BUFFER_SIZE)

    monkeypatch.setattr(Path, "open", counting_open)
    found = [keys(path, first, last) for first, last in itertools.pairwise(borders)]
    assert CountingFile.count < 2 * size
    assert list(itertools.chain(*found)) == keys(path)
    assert len(keys(path)) == 80


def test_ranges_of_compressed_tar_without_gz_suffix(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [(f"{number}.wav", bytes(9000)) for number in range(9)], "w:gz")
    size = path.stat().st_size
    found = [keys(path, first, last) for first, last in ((0, size // 2), (size // 2, size))]
    assert list(itertools.chain(*found)) == keys(path)
    assert len(keys(path)) == 9


@pytest.mark.parametrize("writer", [{}, {"use_dictionary": False}, {"data_page_version": "2.0"}], ids=str)
def test_parquet_ranges_share_rows_evenly(writer: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    noise = np.random.default_rng(0)
    audio = [{"bytes": noise.bytes(5000), "path": f"{number}.wav"} for number in range(20)]
    table = pa.table({"audio": audio, "x": list(range(20))})
    pq.write_table(table, path, row_group_size=2, **writer)
    size = path.stat().st_size
    borders = [size * part // 10 for part in range(11)]
    found = [keys(path, first, last) for first, last in itertools.pairwise(borders)]
    assert list(itertools.chain(*found)) == keys(path)
    assert all(len(part) <= 4 for part in found)


def test_shards_of_same_corpus_get_different_keys(corpus: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    for name in ("first", "second"):
        run(shard_job(), corpus, both / name)
    sources = {"one folder": [str(both)], "two": [str(both / "first"), str(both / "second")]}
    for name, arguments in sources.items():
        report = run_job(shard_job(max_seconds=5.0), arguments, tmp_path / name, LOCAL)
        assert verify_output(open_storage(tmp_path / name)).rows == report.summary.total.rows > 10
        report = run_job(shard_job(max_seconds=5.0, deduplicate=True), arguments, tmp_path / f"{name} once", LOCAL)
        assert report.summary.total.rejects["duplicate"] == report.summary.total.inputs / 2
