"""Conditions on the rows of a table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codectok import InputError
from codectok.tokens.table import read_rows
from tests.helpers.tables import metadata, rows, write

CASES = {
    "start > 3": lambda row: row.start > 3,
    "1 <= start < 4": lambda row: 1 <= row.start < 4,
    'dataset == "d" and not start == 3': lambda row: row.dataset == "d" and row.start != 3,
    'dataset == "e" or id == "clip/1"': lambda row: row.dataset == "e" or row.id == "clip/1",
    'id in ["clip/2", "clip/5"]': lambda row: row.id in ("clip/2", "clip/5"),
    'dataset not in ["d"]': lambda row: row.dataset != "d",
    "text is None": lambda row: row.text is None,
    "text is not None": lambda row: row.text is not None,
    'contains(text, "ell")': lambda row: "ell" in (row.text or ""),
    'starts_with(id, "clip/1")': lambda row: row.id.startswith("clip/1"),
    "n_frames >= 8": lambda row: len(row.codes) >= 8,
    "start < -1": lambda row: False,
    "id in []": lambda row: False,
    "id not in []": lambda row: True,
    "n_frames in [6, 6.5]": lambda row: len(row.codes) == 6,
    # A null is unlike every value: the first row has no text, and no row has a language.
    'text == "hello"': lambda row: row.text is not None,
    'text != "hello"': lambda row: row.text is None,
    'not text == "hello"': lambda row: row.text is None,
    'text not in ["hello"]': lambda row: row.text is None,
    'not text in ["hello"]': lambda row: row.text is None,
    'not contains(text, "ell")': lambda row: row.text is None,
    'language != text and not language < "x"': lambda row: True,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    write(folder / "a.parquet", rows(12), metadata())
    return folder


@pytest.mark.parametrize("text", CASES)
def test_conditions_select_rows(text: str, table: Path) -> None:
    expected = [row.id for row in rows(12) if CASES[text](row)]
    assert [row.id for row in read_rows(table, where=text)] == expected


@pytest.mark.parametrize(
    "text",
    ["", "start >", "start", "nothing == 1", "__import__('os')", "start + 1 > 2", "start > text()", "id is 3",
     "id in 3", 'start > "a"', "f(id, 'x')", "(" * 500,
     "n_samples > 99999999999999999999", "id in ['a', 1]", "n_samples in ['a']", "id == {[1]: 2}", "codes == 1"],
)  # fmt: skip
def test_invalid_conditions_are_refused(text: str, table: Path) -> None:
    with pytest.raises(InputError, match=r"(condition .* cannot be understood|There is no column)"):
        list(read_rows(table, where=text))


def test_endless_conditions_are_refused(table: Path) -> None:
    with pytest.raises(InputError, match="comparisons"):
        list(read_rows(table, where="start == 1 or " * 1000 + "start == 2"))


def test_conditions_read_columns_of_other_programs(tmp_path: Path) -> None:
    write(tmp_path / "own.parquet", rows(3), metadata())
    found = pq.read_table(tmp_path / "own.parquet")
    others = {"id": found["id"].cast(pa.large_string()), "speaker": pa.nulls(3)}
    for name, column in others.items():
        found = found.set_column(found.schema.get_field_index(name), name, column)
    pq.write_table(found, tmp_path / "other.parquet")
    (row,) = read_rows(tmp_path / "other.parquet", where='id in ["clip/1"] and speaker != "a"')
    assert row.id == "clip/1"


def test_no_id_selects_no_row(table: Path) -> None:
    assert list(read_rows(table, ids=set())) == []
