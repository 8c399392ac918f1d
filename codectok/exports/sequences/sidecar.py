"""Lists of the documents beside Megatron's indexed datasets: which clips each part of a `.bin` file comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from .documents import Document, loss_mask_of
from .megatron import UINT8, IndexedDatasetWriter, code_of_ids
from .parquet import SequencesMetadata

SIDECAR_SUFFIX = ".parquet"
LOSS_MASK_SUFFIX = "_loss_mask"
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
    """Context manager that writes an indexed dataset and what belongs to it.

    These are `PREFIX.bin` and `PREFIX.idx`, a list of their documents in `PREFIX.parquet`, and with a loss the indexed
    dataset `PREFIX_loss_mask`: for every id 1 if it is learned, else 0.

    The list has a row for each document, in order: `document` is its number in the index (documents that are packed
    into one sequence share it), `start` and `length` its place among the ids of the `.bin` file, `ids` its clips.

    Args:
        prefix: path of all files without suffix.
        vocabulary_size: number of ids.
        metadata: description of the ids, stored in the list; with a loss the mask is written, too.
    """

    def __init__(self, prefix: Path, vocabulary_size: int, metadata: SequencesMetadata) -> None:
        self._dataset = IndexedDatasetWriter(prefix, code_of_ids(vocabulary_size))
        self._loss_mask: IndexedDatasetWriter | None = None
        if metadata.loss is not None:
            self._loss_mask = IndexedDatasetWriter(prefix.with_name(f"{prefix.name}{LOSS_MASK_SUFFIX}"), UINT8)
        path = prefix.with_name(f"{prefix.name}{SIDECAR_SUFFIX}")
        metadata = metadata.model_copy(update={"format": "codectok.documents"})
        self._schema = metadata.described(SIDECAR_SCHEMA)
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[tuple[Any, ...]] = []
        self._n_sequences = self._n_ids = self._n_characters = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *others: object) -> None:
        for dataset in filter(None, (self._dataset, self._loss_mask)):
            dataset.__exit__(error, *others)
        if error is None:
            self._flush()
        self._writer.close()

    def write(self, sequence: Sequence[Document]) -> None:
        """Append a sequence of documents."""
        self._dataset.write([document.ids for document in sequence])
        if self._loss_mask is not None:
            self._loss_mask.write([loss_mask_of(sequence)])
        for document in sequence:
            clips, source, n_ids = document.clips or (document.id,), document.source, len(document.ids)
            # In the order of the schema.
            self._rows.append((self._n_sequences, self._n_ids, n_ids, clips, document.dataset, source))
            self._n_ids += n_ids
            self._n_characters += sum(map(len, clips)) + len(source or "")
        self._n_sequences += 1
        if len(self._rows) >= ROW_GROUP_ROWS or self._n_characters >= ROW_GROUP_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows, self._n_characters = [], 0
