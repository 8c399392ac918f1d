"""Job `export compact`: the same rows in larger files, each exactly once."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from codectok import CodectokError, InputError
from codectok.errors import VerificationError
from codectok.pipelines.engine.lock import JobShare
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.planning.preview import preview_job
from codectok.pipelines.engine.run import JobReport, run_job
from codectok.pipelines.export.compact import CompactJob, CompactOptions
from codectok.pipelines.verify.output import verify_output
from codectok.storage import open_storage
from codectok.tokens.reader import open_table
from codectok.tokens.source_rows import table_metadata
from codectok.tokens.table import TableMetadata, TokenRow, read_rows
from tests.helpers.jobs import LOCAL, digests
from tests.helpers.ranges import sources_of
from tests.helpers.records import update_record
from tests.helpers.tables import metadata, write

FRAME = 256


def row(n: int) -> TokenRow:
    codes = np.random.default_rng(n).integers(1024, size=(20 + n, 2))
    samples = len(codes) * FRAME
    return TokenRow(f"c{n:03d}", f"{n // 3}.wav", "de"[n % 2], 1.0 * n, samples / 24_000, samples, codes, f"clip {n}")


ROWS = [row(n) for n in range(70)]
# About 2.5 of the table's files.
SMALL = CompactOptions(file_megabytes=0.014, group_megabytes=0.002)


def write_table(folder: Path, step: int = 7, described: TableMetadata | None = None) -> Path:
    for number, first in enumerate(range(0, len(ROWS), step)):
        own = (described or metadata()).model_copy(update={"unit_hash": str(number)})
        write(folder / f"part-{number:06d}.parquet", ROWS[first : first + step], own)
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "tokens")


def compact(table: Path, out: Path, options: RunOptions = LOCAL, settings: CompactOptions = SMALL) -> JobReport:
    job = CompactJob(settings, str(table))
    return run_job(job, job.sources.arguments, out, options)


def same_rows(one: Path, other: Path) -> None:
    for before, after in zip(read_rows(one), read_rows(other), strict=True):
        np.testing.assert_array_equal(before.codes, after.codes)
        assert replace(before, codes=None) == replace(after, codes=None)  # type: ignore[arg-type]


def test_compact_merges_neighbouring_files(table: Path, tmp_path: Path) -> None:
    report = compact(table, out := tmp_path / "out")
    before, after = sorted(table.glob("*.parquet")), sorted(out.glob("*.parquet"))
    assert report.summary.total.rows == report.summary.total.inputs == len(ROWS)
    assert report.summary.total.codes == sum(row.codes.size for row in ROWS)
    assert set(report.summary.datasets) == {"d", "e"}
    assert 1 < len(after) < len(before)
    # Files are merged whole: the first output holds as many as fit.
    sizes = np.cumsum([path.stat().st_size for path in before])
    n_files = int(np.searchsorted(sizes, 14_000, side="right"))
    assert n_files > 1
    assert pq.read_metadata(after[0]).num_rows == 7 * n_files
    same_rows(table, out)
    verified = verify_output(open_storage(out))
    assert (verified.units, verified.rows) == (len(after), len(ROWS))


def test_compacted_table_is_readable(table: Path, tmp_path: Path) -> None:
    compact(table, out := tmp_path / "out")
    opened = open_table(out)
    assert len(opened) == len(ROWS)
    assert opened.metadata.model_copy(update={"unit_hash": "0"}) == open_table(table).metadata
    assert opened["c033"].text == "clip 33"
    assert pyarrow.dataset.dataset(out, exclude_invalid_files=True).count_rows() == len(ROWS)
    files = sorted(map(str, out.glob("*.parquet")))
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["id"] for row in loaded] == [row.id for row in ROWS]
    # A compacted table can be compacted again.
    compact(out, tmp_path / "again", settings=CompactOptions())
    same_rows(table, tmp_path / "again")
    assert len(list((tmp_path / "again").glob("*.parquet"))) == 1


def test_rows_do_not_depend_on_parts(tmp_path: Path) -> None:
    for step in (70, 7, 3):
        compact(write_table(tmp_path / f"tokens-{step}", step), tmp_path / f"out-{step}")
        same_rows(tmp_path / "tokens-70", tmp_path / f"out-{step}")
    # Files are not cut.
    assert len(list((tmp_path / "out-70").glob("*.parquet"))) == 1


def test_resumed_and_shared_compaction_write_same_bytes(table: Path, tmp_path: Path) -> None:
    compact(table, whole := tmp_path / "whole")
    stopped = compact(table, out := tmp_path / "stopped", replace(LOCAL, limit=2))
    assert (stopped.new_units, stopped.summary.complete) == (2, False)
    with pytest.raises(VerificationError, match="units are not complete"):
        verify_output(open_storage(out))
    compact(table, out)
    for index in (2, 1):
        compact(table, tmp_path / "parts", replace(LOCAL, part=JobShare(index, 2)))
    assert digests(whole) == digests(out) == digests(tmp_path / "parts")
    assert compact(table, out).new_units == 0


@pytest.mark.usefixtures("ray_session")
def test_workers_do_not_change_bytes(table: Path, tmp_path: Path) -> None:
    compact(table, tmp_path / "local")
    compact(table, tmp_path / "ray", RunOptions(workers=2, address="auto"))
    assert digests(tmp_path / "local") == digests(tmp_path / "ray")


def test_extend_adds_files_for_new_parts(table: Path, tmp_path: Path) -> None:
    late = max(table.glob("*.parquet"))
    late.rename(tmp_path / late.name)
    compact(table, out := tmp_path / "out")
    before = digests(out)
    (tmp_path / late.name).rename(late)
    grown = compact(table, out, replace(LOCAL, extend=True))
    assert grown.new_units == 1
    parts = {name: digest for name, digest in before.items() if "/" not in name}
    assert parts.items() <= digests(out).items()
    same_rows(table, out)
    verify_output(open_storage(out))


def test_preview_of_compaction(table: Path, tmp_path: Path) -> None:
    job = CompactJob(SMALL, str(table))
    preview = preview_job(job, job.sources.arguments, tmp_path / "out")
    assert preview.estimated_bytes == pytest.approx(sum(path.stat().st_size for path in table.glob("*.parquet")))
    assert not (tmp_path / "out").exists()
    assert compact(table, tmp_path / "out").summary.planned_units == preview.units


def test_invalid_compactions_are_refused(table: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(InputError, match="already exists"):
        compact(table, tmp_path / "taken")
    for sizes in ((1.0, 2.0), (1.0, 0.0), (math.inf, 1.0), (math.nan, 1.0), (1.0, math.nan)):
        with pytest.raises(InputError, match="impossible"):
            CompactOptions(*sizes)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no Parquet files"):
        compact(tmp_path / "empty", tmp_path / "out")
    compact(table, tmp_path / "done")
    with pytest.raises(InputError, match=r"group-megabytes was 0.002 and is 0.001"):
        compact(table, tmp_path / "done", settings=replace(SMALL, group_megabytes=0.001))


def add_columns(path: Path, columns: dict[str, object]) -> None:
    table = pq.read_table(path)
    for name, value in columns.items():
        table = table.add_column(3, name, pa.array([value] * len(table)))
    pq.write_table(table, path)


def test_added_columns_are_kept(table: Path, tmp_path: Path) -> None:
    own = {"snr": 3.5, "tags": ["a", "b"]}
    for path in table.glob("*.parquet"):
        add_columns(path, dict(sorted(own.items(), reverse=path.name.endswith("3.parquet"))))
    compact(table, out := tmp_path / "out")
    same_rows(table, out)
    rows = [row for path in sorted(out.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert all(row["snr"] == 3.5 and row["tags"] == ["a", "b"] for row in rows)
    assert len({tuple(pq.read_schema(path).names) for path in out.glob("*.parquet")}) == 1
    verify_output(open_storage(out))
    target = out / "part-000000.parquet"
    pq.write_table(pq.read_table(target).drop_columns("snr"), target)
    update_record(out, target)
    with pytest.raises(VerificationError, match="other columns than a token table"):
        verify_output(open_storage(out))


def test_unequal_columns_are_refused(table: Path, tmp_path: Path) -> None:
    first, *_, last = sorted(table.glob("*.parquet"))
    add_columns(last, {"snr": 3.5})
    with pytest.raises(CodectokError, match=r"has other added columns \(snr\) than the first file \(none\)"):
        compact(table, tmp_path / "last")
    add_columns(first, {"snr": "high"})
    with pytest.raises(CodectokError, match=r"other added columns \(none\) than the first file \(snr\)"):
        compact(table, tmp_path / "first")


def test_files_in_subfolders_are_ignored(table: Path, tmp_path: Path) -> None:
    write(table / "backup" / "part-000000.parquet", ROWS[:7], metadata())
    compact(table, tmp_path / "out")
    same_rows(table, tmp_path / "out")


@pytest.mark.parametrize("change", [{"codec_fingerprint": "other"}, {"dtype": "bfloat16"}, {"device": "NVIDIA H100"}])
def test_mixed_table_is_refused_before_and_while_it_grows(change: dict[str, str], table: Path, tmp_path: Path) -> None:
    compact(table, tmp_path / "out")
    write(table / "part-000099.parquet", [row(99)], metadata().model_copy(update=change))
    for output, options in (("out", replace(LOCAL, extend=True)), ("new", LOCAL)):
        with pytest.raises(InputError, match=r"part-000099\.parquet differ in (codec|dtype|device)"):
            compact(table, tmp_path / output, options)
    if "codec_fingerprint" in change:
        return
    mixing = replace(SMALL, allow_mixed=True)
    with pytest.raises(InputError, match=r"(dtype was float32|device was cpu) and is mixed"):
        compact(table, tmp_path / "out", replace(LOCAL, extend=True), mixing)
    compact(table, tmp_path / "new", settings=mixing)
    opened = open_table(tmp_path / "new")  # all files record the same mixture
    ((name, value),) = change.items()
    assert opened.metadata.mixed == {name: tuple(sorted((value, getattr(metadata(), name))))}
    assert len(opened) == len(ROWS) + 1
    verify_output(open_storage(tmp_path / "new"))


def test_compacted_parts_record_versions_of_their_files(
    table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, path in enumerate(sorted(table.glob("*.parquet"))):
        step = ROWS[7 * number : 7 * number + 7]
        write(path, step, metadata().model_copy(update={"torch": f"2.{10 + (number > 4)}"}))
    compact(table, tmp_path / "out")
    assert any("version of torch: 2.10 and 2.11" in message for message in caplog.messages)
    found = [table_metadata(source) for source in sources_of(tmp_path / "out")]
    assert (found[0].torch, found[-1].torch) == ("2.10", "2.11")


def test_damaged_file_is_named_and_other_units_finish(table: Path, tmp_path: Path) -> None:
    path = sorted(table.glob("*.parquet"))[-1]
    whole = path.read_bytes()
    compact_from = shutil.copytree(table, tmp_path / "copy")
    (compact_from / path.name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CodectokError, match=f"{path.name} cannot be read as Parquet"):
        compact(compact_from, tmp_path / "out")
    assert list((tmp_path / "out").glob("*.parquet"))


def test_verify_finds_changed_compacted_parts(table: Path, tmp_path: Path) -> None:
    compact(table, tmp_path / "out")

    def changed(name: str, message: str, part: Path | None = None, rows: list[TokenRow] | None = None) -> None:
        folder = shutil.copytree(tmp_path / "out", tmp_path / name)
        target = folder / "part-000000.parquet"
        if part is not None:
            shutil.copy(part, target)
        else:
            write(target, rows or [], open_table(target).metadata)
        update_record(folder, target)
        with pytest.raises(VerificationError, match=message):
            verify_output(open_storage(folder))

    changed("another", "made from other sources", part=tmp_path / "out" / "part-000001.parquet")
    changed("fewer", "but its record says", rows=ROWS[:3])
    n_rows = pq.read_metadata(tmp_path / "out" / "part-000000.parquet").num_rows
    changed("twice", "is also the id of a row", rows=[*ROWS[: n_rows - 1], replace(ROWS[n_rows - 1], id=ROWS[-1].id)])
    (tmp_path / "out" / "part-000000.parquet").write_bytes(b"nothing")
    with pytest.raises(VerificationError):
        verify_output(open_storage(tmp_path / "out"))
