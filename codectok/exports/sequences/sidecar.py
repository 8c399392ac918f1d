"""Lists of the documents beside Megatron's indexed datasets: which clips each part of a `.bin` file comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from .documents import Document
from .megatron import IndexedDatasetWriter

SIDECAR_SUFFIX = ".parquet"
SIDECAR_SCHEMA = pa.schema(
    [
        pa.field("document", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("ids", pa.list_(pa.field("element", pa.string(), nullable=False)), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("source", pa.string()),
    ]
)
ROW_GROUP_ROWS = 1 << 16
ROW_GROUP_CHARACTERS = 1 << 26


class SidecarWriter:
    """Context manager that writes `PREFIX.bin` and `PREFIX.idx`, and a list of their documents to `PREFIX.parquet`.

    The list has a row for each document, in order: `document` is its number in the index (documents that are packed
    into one sequence share it), `start` and `length` its place among the ids of the `.bin` file, `ids` its clips.

    Args:
        prefix, vocabulary_size: as for `IndexedDatasetWriter`.
    """

    def __init__(self, prefix: Path, vocabulary_size: int) -> None:
        self._dataset = IndexedDatasetWriter(prefix, vocabulary_size)
        path = prefix.with_name(f"{prefix.name}{SIDECAR_SUFFIX}")
        self._writer = pq.ParquetWriter(path, SIDECAR_SCHEMA, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._n_sequences = self._n_ids = self._n_characters = 0

    def __enter__(self) -> Self:
        self._dataset.__enter__()
        return self

    def __exit__(self, error: type[BaseException] | None, *others: object) -> None:
        self._dataset.__exit__(error, *others)
        if error is None:
            self._flush()
        self._writer.close()

    def write(self, sequence: Sequence[Document]) -> None:
        """Append a sequence of documents."""
        self._dataset.write(sequence)
        for document in sequence:
            clips = document.clips or (document.id,)
            row = {
                "document": self._n_sequences,
                "start": self._n_ids,
                "length": len(document.ids),
                "ids": clips,
                "dataset": document.dataset,
                "source": document.source,
            }
            self._rows.append(row)
            self._n_ids += len(document.ids)
            self._n_characters += sum(map(len, clips)) + len(document.source or "")
        self._n_sequences += 1
        if len(self._rows) >= ROW_GROUP_ROWS or self._n_characters >= ROW_GROUP_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=SIDECAR_SCHEMA))
        self._rows, self._n_characters = [], 0
