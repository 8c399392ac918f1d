"""Rows of tables and texts by ranges of bytes: each row once, however a file is cut."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codectok import InputError
from codectok.pipelines.engine.planning import ordered_sources
from codectok.pipelines.engine.shares import cut_into_shares
from codectok.sources.arguments import parse_arguments
from codectok.sources.listing import Listing, list_sources
from codectok.sources.rows import recordings_in, table_metadata, text_rows, token_rows
from codectok.sources.source import Source
from codectok.tokens import table
from tests.helpers.tables import metadata, rows, write

KINDS = ("parquet", "lines")


def source_of(path: Path) -> Source:
    return sources_of(path)[0]


def sources_of(path: Path) -> list[Source]:
    return list(ordered_sources(list_sources(*parse_arguments([str(path)], KINDS), KINDS)))


def cut(source: Source, parts: int) -> list[Source]:
    borders = [source.size * n // parts for n in range(parts + 1)]
    return [replace(source, first_byte=first, last_byte=last) for first, last in itertools.pairwise(borders)]


@pytest.mark.parametrize("group_codes", [60, 1 << 22], ids=["many groups", "one group"])
@pytest.mark.parametrize("parts", [1, 2, 7, 50])
def test_every_row_of_a_table_is_in_one_range(
    group_codes: int, parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "ROW_GROUP_CODES", group_codes)
    made = rows(23)
    write(tmp_path / "t" / "part-000000.parquet", made, metadata())
    found = [list(token_rows(part, metadata())) for part in cut(source_of(tmp_path / "t"), parts)]
    joined = [row for part in found for row in part]
    assert [row.id for row in joined] == [row.id for row in made]
    for row, before in zip(joined, made, strict=True):
        np.testing.assert_array_equal(row.codes, before.codes)
    assert max(map(len, found)) <= -(-23 // parts) + 1


@pytest.mark.parametrize("parts", [1, 3, 40])
def test_a_recording_stays_whole_in_the_range_of_its_first_row(parts: int, tmp_path: Path) -> None:
    made = [replace(row, source=f"{n // 4}.wav", dataset="d") for n, row in enumerate(rows(22))]
    write(tmp_path / "t" / "part-000000.parquet", made, metadata())
    found = [
        [row.id for row in group]
        for part in cut(source_of(tmp_path / "t"), parts)
        for group in recordings_in(part, metadata())
    ]
    assert found == [[row.id for row in made[n : n + 4]] for n in range(0, 22, 4)]


@pytest.mark.parametrize("parts", [1, 3, 40])
@pytest.mark.parametrize("borders", [[9], [4, 8], [6, 7, 7, 8, 9], [0, 22], list(range(22))])
def test_a_recording_goes_on_in_the_next_files(parts: int, borders: list[int], tmp_path: Path) -> None:
    """Whether they end with it, within it, have nothing else in them, or no row at all."""
    made = [replace(row, source=f"{n // 9}.wav", dataset="d") for n, row in enumerate(rows(22))]
    for number, (first, end) in enumerate(itertools.pairwise([0, *borders, 22])):
        write(tmp_path / "t" / f"part-{number:06d}.parquet", made[first:end], metadata())
    files = sources_of(tmp_path / "t")
    found = [
        [row.id for row in group]
        for place, file in enumerate(files)
        for part in cut(file, parts)
        for group in recordings_in(part, metadata(), reversed(files[:place]), files[place + 1 :])
    ]
    assert found == [[row.id for row in made[n : n + 9]] for n in range(0, 22, 9)]


def test_a_table_of_another_codec_or_none_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "t" / "part-000000.parquet", rows(2), metadata(fingerprint="other"))
    with pytest.raises(InputError, match="different codecs"):
        list(token_rows(source_of(tmp_path / "t"), metadata()))
    assert table_metadata(source_of(tmp_path / "t")).codec_fingerprint == "other"
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "plain.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"no Parquet")
    for name, message in (("plain", "no codectok metadata"), ("broken", "cannot be read as Parquet")):
        with pytest.raises(InputError, match=message):
            table_metadata(replace(source_of(tmp_path / f"{name}.parquet")))


def lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n\n" for text in texts), encoding="utf-8")
    return path


def parquet(path: Path, texts: list[str]) -> Path:
    pq.write_table(pa.table({"text": texts, "other": [1] * len(texts)}), path, row_group_size=5)
    return path


@pytest.mark.parametrize(("name", "make"), [("t.jsonl", lines), ("t.parquet", parquet)])
@pytest.mark.parametrize("parts", [1, 2, 13, 100])
def test_every_text_is_in_one_range(
    name: str, make: Callable[[Path, list[str]], Path], parts: int, tmp_path: Path
) -> None:
    texts = [f"text {n} " + "ü" * (n % 17) for n in range(31)]
    source = source_of(make(tmp_path / name, texts))
    found = [row for part in cut(source, parts) for row in text_rows(part)]
    assert [row.text for row in found] == texts
    assert len({row.id for row in found}) == 31
    assert [row.id for row in text_rows(source)] == [row.id for row in found]


def test_lines_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a", "id": 7}\nno json\n[1]\n{"words": "b"}\n{"text": ""}')
    found = list(text_rows(source_of(path)))
    assert [(row.id, row.text) for row in found][:2] == [("7", "a"), ("t.jsonl:23", None)]
    assert [row.problem for row in found] == ["", *["It is no JSON object."] * 2, "It has no 'text'.", ""]
    path.write_text('{"text": null}\n{}\n{"text": 3}\n{"text": "\\ud800"}\n[]\n')
    assert [row.reason for row in text_rows(source_of(path))] == [*["filtered"] * 2, *["unreadable"] * 3]
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="no column 'text'"):
        list(text_rows(source_of(tmp_path / "t.parquet")))


def test_units_hold_an_equal_share_of_every_dataset(tmp_path: Path) -> None:
    for dataset, sizes in (("a", [50, 1, 300]), ("b", [70]), ("c", [3])):
        (tmp_path / dataset).mkdir()
        for n, size in enumerate(sizes):
            (tmp_path / dataset / f"{n}.parquet").write_bytes(bytes(size))
    listing = list_sources(*parse_arguments([str(tmp_path / name) for name in "abc"]), ("parquet",))
    before = [(listing.datasets[i], listing.paths[i]) for i in range(5)]
    order, units = cut_into_shares(listing, range(5), part_bytes=100, first_unit=3)
    assert units["unit"].to_pylist() == [3, 4, 5, 6, 7]
    covered: dict[tuple[str, str], list[tuple[int, int]]] = {name: [] for name in before}
    for row in units.to_pylist():
        shares = {"a": 0, "b": 0, "c": 0}
        for i in order[row["first_source"] : row["first_source"] + row["n_sources"]]:
            first, last = listing.ranges.get(i, (0, listing.sizes[i]))
            shares[listing.datasets[i]] += last - first
            covered[listing.datasets[i], listing.paths[i]].append((first, last))
        assert 69 <= shares["a"] <= 71
        assert shares["b"] == 14
        assert shares["c"] <= 1
    for (dataset, path), ranges in covered.items():
        ordered = sorted(ranges)
        assert ordered[0][0] == 0
        assert ordered[-1][1] == (tmp_path / dataset / path).stat().st_size
        assert all(one[1] == other[0] for one, other in itertools.pairwise(ordered))


def test_planning_looks_at_each_file_a_few_times_only() -> None:
    looked = 0

    class Counted(list[int | None]):
        def __getitem__(self, place: Any) -> Any:
            nonlocal looked
            looked += 1
            return super().__getitem__(place)

    listing = Listing(roots={"a": "/a"})
    for n in range(2000):
        listing.add("a", f"{n:04d}.parquet", "parquet", 100, 0)
    listing.sizes = Counted(listing.sizes)
    order, units = cut_into_shares(listing, range(2000), part_bytes=150, first_unit=0)
    assert len(units) == 1334
    assert sum(last - first for first, last in (listing.ranges.get(i, (0, 100)) for i in order)) == 200_000
    assert looked < 20_000


def test_a_table_with_columns_of_its_users_is_read(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", rows(3), metadata())
    table_with_more = pq.read_table(tmp_path / "t.parquet").append_column("mine", pa.array([1, 2, 3]))
    pq.write_table(table_with_more, tmp_path / "t.parquet")
    assert [row.id for row in token_rows(source_of(tmp_path / "t.parquet"), metadata())] == [
        "clip/0",
        "clip/1",
        "clip/2",
    ]
