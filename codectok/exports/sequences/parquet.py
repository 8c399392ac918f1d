"""Sequences of ids in Parquet, for trainers of language models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from codectok.config import StrictModel
from codectok.errors import InputError
from codectok.exports.choices import Loss
from codectok.tokens.layouts.record import LayoutRecord
from codectok.tokens.table import METADATA_KEY

from .documents import NOT_LEARNED, Document, lengths_of, loss_mask_of, positions_of

# Statistics of token ids are useless to readers: only document ids have them.
STATISTICS = ["ids"]
# A dictionary of ids takes twice the time to write, and mostly more space.
COLUMNS_OF_IDS = ("input_ids", "labels", "position_ids")
ENCODING_OF_IDS = "BYTE_STREAM_SPLIT"
# Readers overflow at 2^31 values of a column chunk, and hold a row group in memory.
ROW_GROUP_IDS = 1 << 22
ROW_GROUP_CHARACTERS = 1 << 28
MAX_SEQUENCE_IDS = (1 << 31) - 1 - ROW_GROUP_IDS


class SequencesMetadata(StrictModel):
    """Description of a file's ids, stored as JSON under the key `codectok` of the Parquet metadata.

    Attributes:
        format: what the file holds: sequences, or a list of the documents in Megatron's files beside it.
        codec_name, codec_fingerprint: codec of the codes.
        dtype, device: arithmetic and device that computed the codes, or "mixed"; None if an earlier version wrote it.
        mixed: values of each field in which the tables differ, see `codectok.tokens.table.TableMetadata`.
        offset: id of the first code.
        codebook_size, n_groups, n_residuals: shape of the codec's quantizer.
        vocabulary_end: first id behind codes and special tokens, that is, the embedding rows a model needs.
        end_of_sequence: id that ends a document; None if unknown.
        tokenizer: fingerprint of the text tokenizer; None without one.
        length: largest number of tokens in a sequence; None for no limit.
        unit_hash: hash of the unit of work that wrote the file.
        layout: how codes are written; None for UniTTS's layout.
        loss: positions that a model learns, stored as columns of labels and positions or as Megatron's mask; or None.
    """

    format: Literal["codectok.sequences", "codectok.documents"] = "codectok.sequences"
    version: Literal[1] = 1
    codec_name: str | None
    codec_fingerprint: str | None
    dtype: str | None = None
    device: str | None = None
    mixed: dict[str, list[str]] = Field(default_factory=dict)
    offset: int
    codebook_size: int
    n_groups: int
    n_residuals: int
    vocabulary_end: int
    end_of_sequence: int | None
    tokenizer: str | None
    length: int | None
    unit_hash: str
    layout: LayoutRecord | None = None
    loss: Loss | None = None

    def described(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema of a file with this description."""
        absent = {name for name in ("layout", "loss") if getattr(self, name) is None}
        return schema.with_metadata({METADATA_KEY: self.model_dump_json(exclude=absent).encode()})


def sequences_schema(metadata: SequencesMetadata) -> pa.Schema:
    """Return the schema: ids of a sequence, and of each document in it the length, the id and the dataset.

    With a loss there are columns of labels (ids, or -100 where nothing is learned; not shifted) and of positions, which
    begin at 0 in every document.

    Strings are not Arrow dictionaries: Parquet encodes them as such anyway, and every reader knows plain strings.
    """

    def column(name: str, kind: pa.DataType) -> pa.Field:
        return pa.field(name, pa.list_(pa.field("element", kind, nullable=False)), nullable=False)

    fields = [column("input_ids", pa.int32()), column("lengths", pa.int32())]
    fields += [column(name, pa.string()) for name in ("ids", "datasets")]
    if metadata.loss is not None:
        fields += [column(name, pa.int32()) for name in ("labels", "position_ids")]
    return metadata.described(pa.schema(fields))


class SequenceWriter:
    """Context manager that writes sequences to one Parquet file, deterministically."""

    def __init__(self, path: Path, metadata: SequencesMetadata) -> None:
        self._schema, self._with_loss = sequences_schema(metadata), metadata.loss is not None
        of_ids = [f"{name}.list.element" for name in self._schema.names if name in COLUMNS_OF_IDS]
        others = [f"{name}.list.element" for name in self._schema.names if name not in COLUMNS_OF_IDS]
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression="zstd",
            write_statistics=STATISTICS,
            use_dictionary=others,
            column_encoding=dict.fromkeys(of_ids, ENCODING_OF_IDS),
        )
        self._waiting: list[Sequence[Document]] = []
        self._n_ids = self._n_characters = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self._flush()
        self._writer.close()

    def write(self, sequence: Sequence[Document]) -> None:
        """Append a sequence of documents.

        Raises:
            InputError: it is longer than a list in Parquet can be.
        """
        n_ids = sum(len(document.ids) for document in sequence)
        if n_ids > MAX_SEQUENCE_IDS:
            raise InputError(f"The sequence of {sequence[0].id} has {n_ids:,} tokens; pass --length to limit it.")
        self._waiting.append(sequence)
        self._n_ids += n_ids
        self._n_characters += sum(len(document.id) + len(document.dataset) for document in sequence)
        if self._n_ids >= ROW_GROUP_IDS or self._n_characters >= ROW_GROUP_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        documents = [document for sequence in self._waiting for document in sequence]
        lengths = lengths_of(documents)
        counts = np.array([len(sequence) for sequence in self._waiting])
        of_documents = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        of_ids = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[of_documents].astype(np.int32)
        ids = np.concatenate([document.ids for document in documents])
        values = [
            (of_ids, pa.array(ids, pa.int32())),
            (of_documents, pa.array(lengths, pa.int32())),
            (of_documents, pa.array([document.id for document in documents], pa.string())),
            (of_documents, pa.array([document.dataset for document in documents], pa.string())),
        ]
        if self._with_loss:
            labels = np.where(loss_mask_of(documents), ids, np.int32(NOT_LEARNED))
            values += [(of_ids, pa.array(column, pa.int32())) for column in (labels, positions_of(documents))]
        columns = [
            pa.ListArray.from_arrays(pa.array(offsets), content, type=field.type)
            for (offsets, content), field in zip(values, self._schema, strict=True)
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._waiting, self._n_ids, self._n_characters = [], 0, 0
