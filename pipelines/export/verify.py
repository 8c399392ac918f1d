"""Checks of exports: parts are consistent and agree with their records."""

from __future__ import annotations

import struct
from collections import Counter

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from codectok.errors import VerificationError, first_line
from codectok.exports.sequences.megatron import INT32, MAGIC, UINT16, VERSION
from codectok.exports.sequences.parquet import SequencesMetadata
from codectok.parquet_damage import PARQUET_DAMAGE
from codectok.pipelines.engine.output.records import UnitRecord
from codectok.pipelines.engine.verifier import OutputVerifier
from codectok.storage import Storage
from codectok.tokens.table import METADATA_KEY

from .verify_sidecar import check_sidecar

DATA_PATHS_FILE = "data-paths.txt"
HEADER = struct.Struct("<9sQBQQ")
BLOCK_BYTES = 1 << 22
FIRST_WITH_SIDECARS = 6  # version of the bytes of `export megatron`


def check_sequences(storage: Storage, name: str, record: UnitRecord) -> None:
    """Check a part of `export sequences`: its ids, and number and lengths of its documents.

    Raises:
        VerificationError: the part is damaged, inconsistent, or does not agree with its record.
    """
    documents: Counter[str] = Counter()
    ids = 0
    try:
        with storage.open(name) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            described = _described(file, f"{storage.url}/{name}")
            # One row group at a time: rows can be as long as recordings, and several parts are read at once.
            groups = (file.read_row_group(number, use_threads=False) for number in range(file.num_row_groups))
            for batch in (batch for group in groups for batch in group.to_batches()):
                _refuse_foreign_ids(batch["input_ids"].flatten().to_numpy(), described, f"{storage.url}/{name}")
                filled = pc.list_value_length(batch["input_ids"]).to_numpy()
                lengths = batch["lengths"]
                owners = lengths.value_parent_indices().to_numpy()
                sums = np.bincount(owners, lengths.flatten().to_numpy(), minlength=len(batch))
                same = [lengths.value_lengths().equals(batch[name].value_lengths()) for name in ("ids", "datasets")]
                if not all(same) or not np.array_equal(filled, sums):
                    raise VerificationError(f"{storage.url}/{name} has a sequence whose documents do not add up to it.")
                documents.update(batch["datasets"].flatten().to_pylist())
                ids += int(filled.sum())
    except (*PARQUET_DAMAGE, OSError, KeyError) as error:
        reason = first_line(error)
        raise VerificationError(f"{storage.url}/{name} cannot be read: {reason}") from None
    if documents != {dataset: counts.rows for dataset, counts in record.counts.items() if counts.rows}:
        raise VerificationError(f"{storage.url}/{name} has documents of other datasets than its record says.")
    _compare(storage, name, record, documents.total(), ids)


def check_megatron(storage: Storage, name: str, record: UnitRecord) -> None:
    """Check the index of a part of `export megatron` against its ids; raises `VerificationError`."""
    if not name.endswith(".idx"):
        return
    index = storage.read(name)
    sizes = {file.name: file.bytes for file in record.files}
    stored = sizes.get(f"{name.removesuffix('.idx')}.bin")
    magic, version, code, n_sequences, n_documents = HEADER.unpack_from(index.ljust(HEADER.size, b"\0"))
    whole = len(index) == HEADER.size + 12 * n_sequences + 8 * n_documents
    if (magic, version) != (MAGIC, VERSION) or code not in (INT32, UINT16) or not whole:
        raise VerificationError(f"{storage.url}/{name} is not an index of Megatron.")
    size = 4 if code == INT32 else 2
    lengths = np.frombuffer(index, "<i4", n_sequences, HEADER.size)
    pointers = np.frombuffer(index, "<i8", n_sequences, HEADER.size + 4 * n_sequences)
    documents = np.frombuffer(index, "<i8", n_documents, HEADER.size + 12 * n_sequences)
    ends = np.cumsum(lengths, dtype=np.int64) * size
    if (lengths < 0).any() or not np.array_equal(pointers, np.concatenate([[0], ends])[:n_sequences]):
        raise VerificationError(
            f"{storage.url}/{name} does not match its .bin file: a sequence does not begin where the previous one ends."
        )
    if not np.array_equal(documents, np.arange(n_sequences + 1)):
        raise VerificationError(f"{storage.url}/{name} does not list every sequence as one document.")
    tokens = int(lengths.sum(dtype=np.int64))
    if stored != tokens * size:
        raise VerificationError(f"{storage.url}/{name} does not match its .bin file.")
    if code == INT32:
        _refuse_negative_ids(storage, f"{name.removesuffix('.idx')}.bin")
    _compare(storage, name, record, record.total.rows, tokens)


def check_rows(storage: Storage, name: str, record: UnitRecord) -> None:
    """Check the number of rows, or of `.audio` files, of a part of `export unitts`; raises `VerificationError`."""
    clips = [file.name for file in record.files if file.name.endswith(".audio")]
    if name == next(iter(clips), None) and len(clips) != record.total.rows:
        raise VerificationError(
            f"{storage.url} has {len(clips)} .audio files of the unit {record.unit}, but its record says"
            f" {record.total.rows}."
        )
    if name.endswith(".parquet"):
        with storage.open(name) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            _compare(storage, name, record, file.metadata.num_rows, record.total.codes)


class SequencesVerifier(OutputVerifier):
    """Checks the output of `export sequences`."""

    def check(self, record: UnitRecord, name: str) -> None:
        """Check the documents and ids of a part."""
        check_sequences(self.storage, name, record)


class MegatronVerifier(OutputVerifier):
    """Checks the output of `export megatron`."""

    described_files = (DATA_PATHS_FILE,)

    def check(self, record: UnitRecord, name: str) -> None:
        """Check the index of a prefix, and its list of documents."""
        check_megatron(self.storage, name, record)
        if name.endswith(".idx") and self.plan.header.bytes_version >= FIRST_WITH_SIDECARS:
            check_sidecar(self.storage, name.removesuffix(".idx"), record)


class UnittsVerifier(OutputVerifier):
    """Checks the output of `export unitts`."""

    def check(self, record: UnitRecord, name: str) -> None:
        """Check the number of rows of a part."""
        check_rows(self.storage, name, record)


def _described(file: pq.ParquetFile, where: str) -> SequencesMetadata:
    try:
        return SequencesMetadata.model_validate_json((file.schema_arrow.metadata or {}).get(METADATA_KEY, b""))
    except ValidationError:
        raise VerificationError(f"{where} has no description of its ids.") from None


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


def _refuse_negative_ids(storage: Storage, name: str) -> None:
    with storage.open(name) as opened:
        while data := opened.read(BLOCK_BYTES):
            ids = np.frombuffer(data, "<i4")
            if len(ids) and int(ids.min()) < 0:
                raise VerificationError(f"{storage.url}/{name} has the id {ids.min()}; ids must not be negative.")


def _compare(storage: Storage, name: str, record: UnitRecord, rows: int, tokens: int) -> None:
    total = record.total
    if (rows, tokens) != (total.rows, total.codes):
        raise VerificationError(
            f"{storage.url}/{name} has {rows} documents of {tokens} tokens, but its record says {total.rows} of"
            f" {total.codes}."
        )
