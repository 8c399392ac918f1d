"""Megatron's indexed datasets: `.bin` holds the ids of all sequences, `.idx` their lengths and positions."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
UINT8, INT32, UINT16 = 1, 4, 8
# Types of values by their code in the index.
TYPES: dict[int, np.dtype[Any]] = {UINT8: np.dtype("u1"), INT32: np.dtype("<i4"), UINT16: np.dtype("<u2")}
# Megatron stores vocabularies below this size in 16 bits; it reads the type from the index, other readers assume it.
SMALL_VOCABULARY = 65_500


def code_of_ids(vocabulary_size: int) -> int:
    """Return the code of the type of ids: 16 bits for vocabularies below `SMALL_VOCABULARY`, else 32."""
    return UINT16 if vocabulary_size < SMALL_VOCABULARY else INT32


class IndexedDatasetWriter:
    """Context manager that writes sequences to `PREFIX.bin` and, at the end, their index to `PREFIX.idx`.

    The index lists each sequence as one document, also if several documents are packed into it.

    Args:
        prefix: path of both files without suffix.
        code: type of the values, a key of `TYPES`; `code_of_ids` returns the one for ids.
    """

    def __init__(self, prefix: Path, code: int) -> None:
        self._code, self._type = code, TYPES[code]
        self._index = prefix.with_name(f"{prefix.name}.idx")
        self._bin = prefix.with_name(f"{prefix.name}.bin").open("wb")
        self._lengths = array("i")  # the only thing held in memory: 4 bytes per sequence

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._bin.close()
        if error is None:
            self._write_index()

    def write(self, parts: Sequence[np.ndarray]) -> None:
        """Append a sequence of integers [n] in several parts."""
        values = np.concatenate(parts) if parts else np.zeros(0, self._type)
        stored = values.astype(self._type, copy=False)
        assert stored is values or np.array_equal(stored, values), "values fit the type"
        self._bin.write(stored.data)
        self._lengths.append(len(values))

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
