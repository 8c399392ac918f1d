"""Merging the files of a token table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from codectok.exports.compact import write_compact
from codectok.tokens.table import read_metadata
from tests.helpers.tables import metadata, rows, write


def test_row_groups_have_least_size_and_all_rows(tmp_path: Path) -> None:
    everything = rows(60)
    tables = []
    for number, first in enumerate(range(0, 60, 7)):
        write(path := tmp_path / f"{number}.parquet", everything[first : first + 7], metadata())
        # Users may have added columns.
        tables.append(pq.read_table(path).append_column("mine", pa.array([0] * min(7, 60 - first))))
    write_compact(out := tmp_path / "out.parquet", metadata(fingerprint="g"), tables, group_bytes=2000)
    file = pq.ParquetFile(out)
    groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
    assert 1 < len(groups) < 9
    assert all(group["codes"].nbytes >= 2000 for group in groups[:-1])
    kept = [row for group in groups for row in group.to_pylist()]
    assert kept == [row for table in tables for row in table.drop_columns("mine").to_pylist()]
    assert read_metadata(out) == metadata(fingerprint="g")


def test_empty_table_writes_no_file(tmp_path: Path) -> None:
    write(path := tmp_path / "0.parquet", rows(3), metadata())
    write_compact(tmp_path / "out.parquet", metadata(), [pq.read_table(path).slice(0, 0)], group_bytes=1)
    assert not (tmp_path / "out.parquet").exists()
