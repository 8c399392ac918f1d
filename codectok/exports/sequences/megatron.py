"""Megatron's indexed datasets: `.bin` holds the ids of all sequences, `.idx` says where each of them is."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from .documents import Document

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
INT32, UINT16 = 4, 8
# Megatron stores smaller vocabularies in 16 bits, and so do we: it takes the type from the file, its users do not.
SMALL_VOCABULARY = 65_500


class IndexedDatasetWriter:
    """Writes `PREFIX.bin` as sequences come and `PREFIX.idx` at the end; a context manager.

    Every sequence is a document of its own, whatever it is packed of.

    Args:
        prefix: path of both files without their suffix.
        vocabulary_size: rows that the language model needs; it decides how many bits an id has.
    """

    def __init__(self, prefix: Path, vocabulary_size: int) -> None:
        self._code = UINT16 if vocabulary_size < SMALL_VOCABULARY else INT32
        self._type = np.dtype("<u2" if self._code == UINT16 else "<i4")
        self._index = prefix.with_name(f"{prefix.name}.idx")
        self._bin = prefix.with_name(f"{prefix.name}.bin").open("wb")
        self._lengths = array("i")  # 4 bytes a sequence is all that is held in memory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._bin.close()
        if error is None:
            self._write_index()

    def write(self, sequence: Sequence[Document]) -> None:
        """Append a sequence."""
        for document in sequence:
            ids = document.ids.astype(self._type)
            assert np.array_equal(ids, document.ids), "the vocabulary has all ids"
            self._bin.write(ids.tobytes())
        self._lengths.append(sum(len(document.ids) for document in sequence))

    def _write_index(self) -> None:
        lengths = np.asarray(self._lengths, "<i4")
        ends = np.cumsum(lengths, dtype=np.int64) * self._type.itemsize
        pointers = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        with self._index.open("wb") as file:
            file.write(MAGIC)
            file.write(struct.pack("<QBQQ", VERSION, self._code, len(lengths), len(lengths) + 1))
            file.write(lengths.tobytes())
            file.write(pointers.astype("<i8").tobytes())
            file.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())
