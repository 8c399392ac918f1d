"""Checks of sequences in Parquet."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from codectok.errors import VerificationError, first_line
from codectok.exports.sequences.documents import NOT_LEARNED
from codectok.exports.sequences.parquet import SequencesMetadata
from codectok.parquet_damage import PARQUET_DAMAGE
from codectok.storage import Storage

from .verify_amounts import Amounts
from .verify_description import description_of


def check_sequences(storage: Storage, name: str) -> Amounts:
    """Check a part of `export sequences`: its ids, numbers and lengths of documents, labels and positions.

    Raises:
        VerificationError: the part is damaged or inconsistent.
    """
    where = f"{storage.url}/{name}"
    documents: Counter[str] = Counter()
    tokens = 0
    try:
        with storage.open(name) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            described = description_of(file, where, "codectok.sequences")
            # One row group at a time: rows can be as long as recordings, and several parts are read at once.
            groups = (file.read_row_group(number, use_threads=False) for number in range(file.num_row_groups))
            for batch in (batch for group in groups for batch in group.to_batches()):
                _refuse_foreign_ids(batch["input_ids"].flatten().to_numpy(), described, where)
                filled = pc.list_value_length(batch["input_ids"]).to_numpy()
                lengths = batch["lengths"]
                owners = lengths.value_parent_indices().to_numpy()
                sums = np.bincount(owners, lengths.flatten().to_numpy(), minlength=len(batch))
                same = [lengths.value_lengths().equals(batch[name].value_lengths()) for name in ("ids", "datasets")]
                if not all(same) or not np.array_equal(filled, sums):
                    raise VerificationError(f"{where} has a sequence whose documents do not add up to it.")
                if described.loss is not None:
                    _check_loss(batch, where)
                documents.update(batch["datasets"].flatten().to_pylist())
                tokens += int(filled.sum())
    except (*PARQUET_DAMAGE, OSError, KeyError) as error:
        raise VerificationError(f"{where} cannot be read: {first_line(error)}") from None
    return Amounts(tokens, documents)


def _refuse_foreign_ids(ids: np.ndarray, described: SequencesMetadata, where: str) -> None:
    foreign = ids < 0
    if described.tokenizer is None:  # a tokenizer may have tokens behind the codec's
        eos = -1 if described.end_of_sequence is None else described.end_of_sequence
        foreign |= (ids >= described.vocabulary_end) & (ids != eos)
    if foreign.any():
        raise VerificationError(
            f"{where} has the id {ids[foreign][0]}, but the ids of its vocabulary end before"
            f" {described.vocabulary_end}."
        )


def _check_loss(batch: pa.RecordBatch, where: str) -> None:
    """Compare labels and positions with the ids and documents of some sequences."""
    for column in ("labels", "position_ids"):
        if not batch[column].value_lengths().equals(batch["input_ids"].value_lengths()):
            raise VerificationError(f"{where} has a sequence whose {column} are not as many as its ids.")
    ids, labels, positions = (batch[name].flatten().to_numpy() for name in ("input_ids", "labels", "position_ids"))
    lengths = batch["lengths"].flatten().to_numpy()
    firsts = (np.cumsum(lengths, dtype=np.int64) - lengths)[lengths > 0]
    if ((labels != NOT_LEARNED) & (labels != ids)).any() or (labels[firsts] != NOT_LEARNED).any():
        raise VerificationError(f"{where} has a label that is neither {NOT_LEARNED} nor the id to be learned there.")
    if not np.array_equal(positions, np.arange(len(ids)) - np.repeat(firsts, lengths[lengths > 0])):
        raise VerificationError(f"{where} has positions that do not begin at 0 in every document.")
