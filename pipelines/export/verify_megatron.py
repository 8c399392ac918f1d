"""Checks of Megatron's indexed datasets: an index matches its values, a loss mask its ids."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from codectok.errors import VerificationError
from codectok.exports.sequences.megatron import INT32, MAGIC, TYPES, UINT8, VERSION
from codectok.exports.sequences.sidecar import LOSS_MASK_SUFFIX
from codectok.pipelines.engine.output.records import UnitRecord
from codectok.storage import Storage

HEADER = struct.Struct("<9sQBQQ")
BLOCK_BYTES = 1 << 22


def check_dataset(storage: Storage, prefix: str, record: UnitRecord) -> np.ndarray:
    """Check `PREFIX.idx` and `PREFIX.bin`, and return the lengths of the sequences, int32.

    Raises:
        VerificationError: the index is no index, or does not match the values.
    """
    code, lengths = _check_index(storage, prefix, record)
    if code == UINT8:
        raise VerificationError(f"{storage.url}/{prefix}.idx is the index of a loss mask, not of ids.")
    if code == INT32:
        for ids in _values(storage, prefix, code):
            if len(ids) and int(ids.min()) < 0:
                raise VerificationError(f"{storage.url}/{prefix}.bin has the id {ids.min()}; ids must not be negative.")
    return lengths


def check_loss_mask(storage: Storage, prefix: str, record: UnitRecord, lengths: np.ndarray, starts: np.ndarray) -> None:
    """Check that the loss mask beside `PREFIX` has a 0 or 1 for each id, and 0 for the first one of each document.

    Args:
        storage, prefix, record: of the dataset.
        lengths: of its sequences.
        starts: places of the documents that have ids, in order.

    Raises:
        VerificationError: it is missing, has other lengths or other values.
    """
    mask = f"{prefix}{LOSS_MASK_SUFFIX}"
    if f"{mask}.idx" not in {file.name for file in record.files}:
        raise VerificationError(f"{storage.url}/{mask}.idx is missing: the loss mask of {prefix}.bin.")
    code, found = _check_index(storage, mask, record)
    if code != UINT8 or not np.array_equal(found, lengths):
        raise VerificationError(f"{storage.url}/{mask}.idx does not match {prefix}.idx: sequences have other lengths.")
    place = 0
    for values in _values(storage, mask, code):
        if len(values) and int(values.max()) > 1:
            raise VerificationError(f"{storage.url}/{mask}.bin has the value {values.max()}; a mask has 0 and 1 only.")
        first, last = np.searchsorted(starts, (place, place + len(values)))
        if values[starts[first:last] - place].any():
            raise VerificationError(f"{storage.url}/{mask}.bin lets the first id of a document be learned.")
        place += len(values)


def _check_index(storage: Storage, prefix: str, record: UnitRecord) -> tuple[int, np.ndarray]:
    name = f"{prefix}.idx"
    index = storage.read(name)
    sizes = {file.name: file.bytes for file in record.files}
    magic, version, code, n_sequences, n_documents = HEADER.unpack_from(index.ljust(HEADER.size, b"\0"))
    whole = len(index) == HEADER.size + 12 * n_sequences + 8 * n_documents
    if (magic, version) != (MAGIC, VERSION) or code not in TYPES or not whole:
        raise VerificationError(f"{storage.url}/{name} is not an index of Megatron.")
    size = TYPES[code].itemsize
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
    if sizes.get(f"{prefix}.bin") != int(lengths.sum(dtype=np.int64)) * size:
        raise VerificationError(f"{storage.url}/{name} does not match its .bin file.")
    return code, lengths


def _values(storage: Storage, prefix: str, code: int) -> Iterator[np.ndarray]:
    with storage.open(f"{prefix}.bin") as opened:
        while data := opened.read(BLOCK_BYTES):
            yield np.frombuffer(data, TYPES[code])
