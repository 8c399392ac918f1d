"""Rows of token tables by ranges of bytes: each row once, however a file is cut."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codectok import InputError
from codectok.tokens import table
from codectok.tokens.source_rows import recordings_in, table_metadata, token_rows
from tests.helpers.ranges import cut, source_of, sources_of
from tests.helpers.tables import metadata, rows, write


@pytest.mark.parametrize("group_codes", [60, 1 << 22], ids=["many groups", "one group"])
@pytest.mark.parametrize("parts", [1, 2, 7, 50])
def test_table_ranges_yield_every_row_once(
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
def test_recording_belongs_to_range_of_its_first_row(parts: int, tmp_path: Path) -> None:
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
def test_recording_continues_in_next_files(parts: int, borders: list[int], tmp_path: Path) -> None:
    """Files end with a recording, within it, hold nothing else, or have no rows."""
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


def test_table_of_other_codec_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "t" / "part-000000.parquet", rows(2), metadata(fingerprint="other"))
    with pytest.raises(InputError, match="differ in codec"):
        list(token_rows(source_of(tmp_path / "t"), metadata()))
    assert table_metadata(source_of(tmp_path / "t")).codec_fingerprint == "other"
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "plain.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"no Parquet")
    for name, message in (("plain", "no codectok metadata"), ("broken", "cannot be read as Parquet")):
        with pytest.raises(InputError, match=message):
            table_metadata(replace(source_of(tmp_path / f"{name}.parquet")))


def test_table_with_user_columns_is_read(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", rows(3), metadata())
    table_with_more = pq.read_table(tmp_path / "t.parquet").append_column("mine", pa.array([1, 2, 3]))
    pq.write_table(table_with_more, tmp_path / "t.parquet")
    assert [row.id for row in token_rows(source_of(tmp_path / "t.parquet"), metadata())] == [
        "clip/0",
        "clip/1",
        "clip/2",
    ]
