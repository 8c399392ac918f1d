"""Reads Megatron's indexed datasets by their layout alone."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}


@dataclass(frozen=True)
class Indexed:
    """Contents of an indexed dataset."""

    dtype: str
    sequences: list[list[int]]
    documents: list[int]


def read_indexed(prefix: Path) -> Indexed:
    """Read `PREFIX.bin`, and `PREFIX.idx`: magic, version, type, counts, int32 lengths, int64 pointers, documents."""
    index = prefix.with_name(prefix.name + ".idx").read_bytes()
    data = prefix.with_name(prefix.name + ".bin").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, n_sequences, n_documents = struct.unpack_from("<QBQQ", index, 9)
    assert version == 1
    place = 34
    lengths = struct.unpack_from(f"<{n_sequences}i", index, place)
    place += 4 * n_sequences
    pointers = struct.unpack_from(f"<{n_sequences}q", index, place)
    place += 8 * n_sequences
    documents = struct.unpack_from(f"<{n_documents}q", index, place)
    assert len(index) == place + 8 * n_documents
    size = np.dtype(TYPES[code]).itemsize
    assert documents[0] == 0
    assert documents[-1] == n_sequences
    assert len(data) == size * sum(lengths)
    sequences = [
        np.frombuffer(data, TYPES[code], length, pointer).tolist()
        for length, pointer in zip(lengths, pointers, strict=True)
    ]
    return Indexed(TYPES[code], sequences, list(documents))
