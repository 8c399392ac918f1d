"""Sequences in Parquet."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codectok.exports.choices import Loss
from codectok.exports.sequences import parquet as sequences
from codectok.exports.sequences.documents import Document
from codectok.exports.sequences.parquet import SequencesMetadata, SequenceWriter

METADATA = SequencesMetadata(
    codec_name="nano",
    codec_fingerprint="f",
    offset=10,
    codebook_size=4,
    n_groups=1,
    n_residuals=1,
    vocabulary_end=22,
    end_of_sequence=1,
    tokenizer=None,
    length=8,
    unit_hash="u",
)


def document(name: str, *ids: int, dataset: str = "d") -> Document:
    return Document(np.array(ids, np.int32), name, dataset)


@pytest.mark.parametrize("group_ids", [1, 4, 1 << 22])
def test_written_sequences_keep_document_lengths(
    group_ids: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequences, "ROW_GROUP_IDS", group_ids)
    path = tmp_path / "part-000000.parquet"
    with SequenceWriter(path, METADATA) as writer:
        writer.write([document("a", 1, 2, 3), document("b", 4, dataset="e")])
        writer.write([document("c", 5, 6)])
    table = pq.read_table(path)
    assert table.column("input_ids").to_pylist() == [[1, 2, 3, 4], [5, 6]]
    assert table.column("lengths").to_pylist() == [[3, 1], [2]]
    assert table.column("ids").to_pylist() == [["a", "b"], ["c"]]
    assert table.column("datasets").to_pylist() == [["d", "e"], ["d"]]
    assert pq.ParquetFile(path).metadata.row_group(0).column(3).has_dictionary_page
    assert table.schema.field("input_ids").type.value_type == pa.int32()
    assert SequencesMetadata.model_validate_json(table.schema.metadata[b"codectok"]) == METADATA
    loaded = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["input_ids"] for row in loaded] == [[1, 2, 3, 4], [5, 6]]
    assert [row["datasets"] for row in loaded] == [["d", "e"], ["d"]]
    streamed = datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    assert [row["lengths"] for row in streamed] == [[3, 1], [2]]


def test_ids_and_labels_have_no_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "part-000000.parquet"
    with SequenceWriter(path, METADATA.model_copy(update={"loss": Loss.ALL})) as writer:
        writer.write([document("a", *range(10, 14), *range(13, 9, -1))._replace(learned=np.arange(8) < 6)])
    (row,) = pq.read_table(path).to_pylist()
    assert row["input_ids"] == [10, 11, 12, 13, 13, 12, 11, 10]
    assert row["labels"] == [-100, 11, 12, 13, 13, 12, -100, -100]
    assert row["position_ids"] == list(range(8))
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    encodings = {column.path_in_schema.removesuffix(".list.element"): column.encodings for column in columns}
    split = {name for name, found in encodings.items() if "BYTE_STREAM_SPLIT" in found}
    with_dictionary = {name for name, found in encodings.items() if "RLE_DICTIONARY" in found}
    assert split == {"input_ids", "labels", "position_ids"}
    assert with_dictionary == {"lengths", "ids", "datasets"}
