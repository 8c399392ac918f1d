"""Writes new rows at the end of tensors of safetensors files, without loading the files.

Layout: the header's length (8 bytes, little endian), the header (JSON: type, shape and offsets of every tensor), and
the tensors' bytes, one tensor after the other in row-major order.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from codectok.errors import InputError, first_line

ROW_TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
CHUNK_BYTES = 1 << 22
HEADER_ALIGNMENT = 8
METADATA = "__metadata__"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: its type in the notation of safetensors, and the position of its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    first_byte: int
    n_bytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes per row."""
        return self.n_bytes // max(1, self.shape[0])

    @property
    def row_type(self) -> torch.dtype:
        """Type of its rows; raises `InputError` if rows of this type cannot be added."""
        if self.dtype not in ROW_TYPES:
            raise InputError(
                f"{self.file}: the tensor {self.name!r} is stored as {self.dtype}; rows can be added to"
                f" {', '.join(ROW_TYPES)} only."
            )
        return ROW_TYPES[self.dtype]

    def chunks(self) -> Iterator[Tensor]:
        """Yield its rows as float32, a few megabytes at a time."""
        rows = max(1, CHUNK_BYTES * self.shape[0] // max(1, self.n_bytes))
        with self.file.open("rb") as file:
            file.seek(self.first_byte)
            for first in range(0, self.shape[0], rows):
                data = bytearray(file.read(self.row_bytes * min(rows, self.shape[0] - first)))
                yield torch.frombuffer(data, dtype=self.row_type).view(-1, *self.shape[1:]).float()


@dataclass(frozen=True)
class NewRows:
    """Rows at the end of a tensor, in the place of its own rows from `first` on.

    Attributes:
        first: number of rows that the tensor keeps.
        count: number of new rows.
        blocks: the new rows [n, ...], made when they are written.
    """

    first: int
    count: int
    blocks: Iterable[Tensor]

    @property
    def total(self) -> int:
        """Rows of the tensor with them."""
        return self.first + self.count


def stored_tensors(path: Path) -> list[StoredTensor]:
    """Return the tensors of a file, in the order of their bytes; raise `InputError` if it is not safetensors."""
    header, first_byte = _read_header(path)
    found: list[StoredTensor] = []
    for name, entry in header.items():
        if name != METADATA:
            start, end = entry["data_offsets"]
            shape = tuple(entry["shape"])
            found.append(StoredTensor(name, entry["dtype"], shape, path, first_byte + start, end - start))
    return sorted(found, key=lambda tensor: tensor.first_byte)


def copy_with_rows(source: Path, target: Path, rows: Mapping[str, NewRows]) -> None:
    """Copy `source` to `target`, with new rows at the end of the tensors named in `rows`."""
    old_header, _ = _read_header(source)
    tensors = stored_tensors(source)
    header: dict[str, Any] = {METADATA: old_header[METADATA]} if METADATA in old_header else {}
    place = 0
    for tensor in tensors:
        n_bytes, shape = tensor.n_bytes, tensor.shape
        if tensor.name in rows:
            n_bytes = rows[tensor.name].total * tensor.row_bytes
            shape = (rows[tensor.name].total, *shape[1:])
        header[tensor.name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": [place, place + n_bytes]}
        place += n_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    with source.open("rb") as old, target.open("wb") as new:
        new.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            old.seek(tensor.first_byte)
            if tensor.name in rows:
                _copy(old, new, rows[tensor.name].first * tensor.row_bytes)
                _write_rows(new, tensor, rows[tensor.name])
            else:
                _copy(old, new, tensor.n_bytes)


def _write_rows(target: BinaryIO, tensor: StoredTensor, rows: NewRows) -> None:
    assert rows.first <= tensor.shape[0], "kept rows exist"
    written = 0
    for block in rows.blocks:
        own = block.to(tensor.row_type).contiguous()
        target.write(own.view(torch.uint8).numpy().data)
        written += len(block)
    assert written == rows.count, "the header promises this number of rows"


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    try:
        # Validates the header, so that it can be parsed below.
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read: {first_line(error)}.") from None
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
        return header, 8 + length


def _copy(source: BinaryIO, target: BinaryIO, n_bytes: int) -> None:
    while n_bytes:
        block = source.read(min(n_bytes, CHUNK_BYTES))
        if not block:
            raise InputError(f"{source.name} became shorter while it was read; run the same command again.")
        target.write(block)
        n_bytes -= len(block)
