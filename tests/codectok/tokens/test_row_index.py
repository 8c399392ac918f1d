"""Rows of several tables by id."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codectok import InputError
from codectok.pipelines.export.sources import files_of_tables
from codectok.tokens import row_index
from codectok.tokens import table as table_module
from codectok.tokens.row_index import RowIndex, fingerprint_of_tables
from tests.helpers.tables import metadata, rows, write

EVERYTHING = rows(37)


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(table_module, "ROW_GROUP_CODES", 100)  # several groups a file
    for number, first in enumerate(range(0, 30, 10)):
        write(tmp_path / "one" / f"{number}.parquet", EVERYTHING[first : first + 10], metadata())
    twice = [EVERYTHING[31], replace(EVERYTHING[31], duration=9.0)]
    write(tmp_path / "two.parquet", [*EVERYTHING[25:], *twice], metadata())
    return [str(tmp_path / "one"), f"2={tmp_path / 'two.parquet'}"]


def test_rows_are_found_in_any_order(tables: list[str]) -> None:
    index = RowIndex(files_of_tables(tables), metadata())
    assert len(index) == 44
    wanted = [EVERYTHING[n] for n in np.random.default_rng(0).permutation(25)]
    found = index.find([row.id for row in wanted] * 2)
    for row in wanted:
        other = found[row.id].row
        assert other is not None
        assert (other.id, other.text, other.codes.dtype) == (row.id, row.text, np.dtype(np.uint16))
        np.testing.assert_array_equal(other.codes, row.codes)
        assert index.count_codes(row.id) == row.codes.size


def test_ids_of_several_tables_need_a_name(tables: list[str]) -> None:
    index = RowIndex(files_of_tables(tables), metadata())
    name = EVERYTHING[27].id
    found = index.find([name, f"one#{name}", f"2#{name}", "one#2", f"3#{name}", EVERYTHING[31].id, "none"])
    assert found[name].problem == f"The audio {name} is in the tables one and 2; write one#ID for one of them."
    assert found[f"one#{name}"].row is not None
    assert found[f"2#{name}"].row is not None
    assert "none of the tables" in found[f"3#{name}"].problem
    assert "none of the tables" in found["one#2"].problem
    assert "3 times in the table 2" in found[EVERYTHING[31].id].problem
    assert index.count_codes("none") == 0


def test_sources_name_rows(tables: list[str]) -> None:
    index = RowIndex(files_of_tables(tables[:1]), metadata(), "source")
    assert "30 times in the table one" in index.find(["a.wav"])["a.wav"].problem
    assert index.find([EVERYTHING[0].id])[EVERYTHING[0].id].row is None


def test_equal_hashes_are_told_apart(tables: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_index, "hash_of_id", lambda row_id: len(row_id))
    index = RowIndex(files_of_tables(tables), metadata())
    found = index.find([EVERYTHING[3].id, "clip/x"])
    assert found[EVERYTHING[3].id].row is not None
    assert found["clip/x"].row is None


def test_files_of_another_codec_are_refused(tables: list[str], tmp_path: Path) -> None:
    write(tmp_path / "one" / "9.parquet", EVERYTHING[:1], metadata(fingerprint="other"))
    with pytest.raises(InputError, match="differ in codec"):
        RowIndex(files_of_tables(tables), metadata())


def test_fingerprint_depends_on_files_only(tables: list[str], tmp_path: Path) -> None:
    before = fingerprint_of_tables(files_of_tables(tables))
    assert before.keys() == {"one", "2"}
    path = tmp_path / "one" / "1.parquet"
    data = path.read_bytes()
    path.unlink()
    assert fingerprint_of_tables(files_of_tables(tables))["one"] != before["one"]
    path.write_bytes(data)  # another time
    assert fingerprint_of_tables(files_of_tables(tables)) == before
    path.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])  # the same size
    assert fingerprint_of_tables(files_of_tables(tables))["one"] != before["one"]
