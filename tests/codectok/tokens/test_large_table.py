"""Tables with more codes than a 32-bit offset can count, and rows or groups of unusual size."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codectok.exports import compact
from codectok.exports.sequences import parquet as sequences
from codectok.exports.sequences.documents import Document
from codectok.sources import row_ranges
from codectok.tokens import table
from codectok.tokens.source_rows import token_rows
from codectok.tokens.table import ROW_GROUP_CODES, read_rows, table_schema, table_writer
from tests.helpers.ranges import source_of
from tests.helpers.tables import metadata, rows, write

ROWS, ROW_CODES = 64, 1 << 16
GROUPS = (1 << 31) // (ROWS * ROW_CODES) + 1

READERS = {
    "pyarrow": """
import pyarrow.parquet as pq
file = pq.ParquetFile(path, pre_buffer=False)
sizes = [(len(batch), len(batch["codes"].flatten())) for batch in file.iter_batches(64, columns=["codes"])]
""",
    "pyarrow.dataset": """
import pyarrow.dataset
scanner = pyarrow.dataset.dataset(path).scanner(["codes"], batch_size=64, batch_readahead=1, fragment_readahead=1)
sizes = [(len(batch), len(batch["codes"].flatten())) for batch in scanner.to_batches()]
""",
    "datasets": """
import datasets
loaded = datasets.load_dataset("parquet", data_files=path, split="train", streaming=True)
sizes = [
    (len(batch), sum(len(chunk.flatten()) for chunk in batch["codes"].chunks))
    for batch in loaded.with_format("arrow").iter(64)
]
""",
    "open_table": """
from codectok import open_table
opened = open_table(path)
assert opened[opened.row(len(opened) - 1).id].codes[-1] == 7
sizes = [(1, row.codes.size) for row in opened]
""",
}
PEAK = """
import json, os, resource, sys
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([sum(rows for rows, _ in sizes), sum(codes for _, codes in sizes), peak]))
# Readers of datasets may abort an interpreter that ends while their threads run.
sys.stdout.flush()
os._exit(0)
"""


@pytest.fixture(scope="module")
def large_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file, written group by group as `tokenize` writes it, but with constant codes."""
    path = tmp_path_factory.mktemp("large") / "part-000000.parquet"
    described = metadata(1024, 1)
    schema = table_schema(described)
    codes = pa.ListArray.from_arrays(
        pa.array(np.arange(ROWS + 1) * ROW_CODES, pa.int32()),
        pa.array(np.full(ROWS * ROW_CODES, 7, np.uint16)),
        type=schema.field("codes").type,
    )
    same = {"codes": codes, "n_frames": [ROW_CODES] * ROWS, "dataset": ["d"] * ROWS, "source": ["a.wav"] * ROWS}
    numbers = {"start": 0.0, "duration": ROW_CODES * 256 / 24_000, "n_samples": ROW_CODES * 256}
    with table_writer(path, schema) as writer:
        for group in range(GROUPS):
            columns = {**same, **{name: [value] * ROWS for name, value in numbers.items()}}
            columns["id"] = [f"{group}-{row}" for row in range(ROWS)]
            arrays = [
                columns[field.name]
                if field.name == "codes"
                else pa.array(columns.get(field.name, [None] * ROWS), field.type)
                for field in schema
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_more_codes_than_32_bits_count_are_read(reader: str, large_table: Path) -> None:
    assert pq.read_metadata(large_table).num_row_groups == GROUPS
    assert large_table.stat().st_size < 1 << 27
    code = f"path = {str(large_table)!r}\n{READERS[reader]}\n{PEAK}"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    n_rows, n_codes, peak = json.loads(done.stdout.splitlines()[-1])
    assert (n_rows, n_codes) == (GROUPS * ROWS, GROUPS * ROWS * ROW_CODES)
    assert n_codes > 1 << 31
    assert peak < 3 << 30


def test_long_rows_are_read_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches end with their row group, and hold a bounded number of codes."""
    monkeypatch.setattr(table, "ROW_GROUP_CODES", 200)
    monkeypatch.setattr(row_ranges, "BATCH_VALUES", 50)
    made = rows(40)
    write(tmp_path / "t.parquet", made, metadata())
    file = pq.ParquetFile(tmp_path / "t.parquet")
    assert file.num_row_groups > 5
    for group in range(file.num_row_groups):
        batches = list(row_ranges.batches_of_group(file, group, ["codes"]))
        assert sum(map(len, batches)) == file.metadata.row_group(group).num_rows
        longest = max(len(row) for batch in batches for row in batch["codes"].to_pylist())
        assert all(len(batch["codes"].flatten()) < 50 + 2 * longest for batch in batches)
    assert [row.id for row in read_rows(tmp_path / "t.parquet")] == [row.id for row in made]
    assert [row.id for row in token_rows(source_of(tmp_path / "t.parquet"), metadata())] == [row.id for row in made]


def test_a_single_long_row_is_one_group(tmp_path: Path) -> None:
    long = replace(rows(1)[0], codes=np.ones((ROW_GROUP_CODES, 2), np.int64))
    write(tmp_path / "t.parquet", [rows(2)[1], long, rows(3)[2]], metadata())
    sizes = [group.size for row in read_rows(tmp_path / "t.parquet") for group in [row.codes]]
    assert sizes == [12, 2 * ROW_GROUP_CODES, 14]
    assert pq.read_metadata(tmp_path / "t.parquet").num_row_groups == 2


def test_long_texts_end_a_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROW_GROUP_CHARACTERS", 1000)
    made = [replace(row, text="x" * 400) for row in rows(10)]
    write(tmp_path / "t.parquet", made, metadata())
    assert pq.read_metadata(tmp_path / "t.parquet").num_row_groups == 4
    assert [row.text for row in read_rows(tmp_path / "t.parquet")] == [row.text for row in made]


def test_compacted_groups_have_bounded_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "MAX_GROUP_CODES", 300)
    write(tmp_path / "t.parquet", rows(30), metadata())
    parts = [pq.read_table(tmp_path / "t.parquet").slice(first, 3) for first in range(0, 30, 3)]
    compact.write_compact(tmp_path / "out.parquet", metadata(), parts, 1e12)
    file = pq.ParquetFile(tmp_path / "out.parquet")
    sizes = [
        len(file.read_row_group(number)["codes"].combine_chunks().flatten()) for number in range(file.num_row_groups)
    ]
    assert max(sizes) <= 300 and sum(sizes) == sum(row.codes.size for row in rows(30))


def test_groups_of_sequences_are_bounded_by_ids_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "ROW_GROUP_CHARACTERS", 100)
    described = sequences.SequencesMetadata(
        codec_name="c", codec_fingerprint="f", offset=0, codebook_size=8, n_groups=1, n_residuals=1, vocabulary_end=16,
        end_of_sequence=None, tokenizer=None, length=None, unit_hash="u",
    )  # fmt: skip
    with sequences.SequenceWriter(tmp_path / "s.parquet", described) as writer:
        for number in range(12):
            writer.write([Document(np.arange(3, dtype=np.int32), f"{number:020}", "d")])
    file = pq.ParquetFile(tmp_path / "s.parquet")
    assert (file.num_row_groups, file.metadata.num_rows) == (3, 12)
