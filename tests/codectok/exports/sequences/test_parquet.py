"""Sequences in Parquet."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
