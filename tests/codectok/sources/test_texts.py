"""Texts by ranges of bytes: each text once, however a file is cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codectok import InputError
from codectok.sources.texts import text_rows
from tests.helpers.ranges import cut, source_of


def lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n\n" for text in texts), encoding="utf-8")
    return path


def parquet(path: Path, texts: list[str]) -> Path:
    pq.write_table(pa.table({"text": texts, "other": [1] * len(texts)}), path, row_group_size=5)
    return path


@pytest.mark.parametrize(("name", "make"), [("t.jsonl", lines), ("t.parquet", parquet)])
@pytest.mark.parametrize("parts", [1, 2, 13, 100])
def test_text_ranges_yield_every_text_once(
    name: str, make: Callable[[Path, list[str]], Path], parts: int, tmp_path: Path
) -> None:
    texts = [f"text {n} " + "ü" * (n % 17) for n in range(31)]
    source = source_of(make(tmp_path / name, texts))
    found = [row for part in cut(source, parts) for row in text_rows(part)]
    assert [row.text for row in found] == texts
    assert len({row.id for row in found}) == 31
    assert [row.id for row in text_rows(source)] == [row.id for row in found]


def test_bad_text_rows_have_problem_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a", "id": 7}\nno json\n[1]\n{"words": "b"}\n{"text": ""}')
    found = list(text_rows(source_of(path)))
    assert [(row.id, row.text) for row in found][:2] == [("7", "a"), ("t.jsonl:23", None)]
    assert [row.problem for row in found] == ["", *["It is not a JSON object."] * 2, "It has no 'text'.", ""]
    path.write_text('{"text": null}\n{}\n{"text": 3}\n{"text": "\\ud800"}\n[]\n')
    assert [row.reason for row in text_rows(source_of(path))] == [*["filtered"] * 2, *["unreadable"] * 3]
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="no column 'text'"):
        list(text_rows(source_of(tmp_path / "t.parquet")))
