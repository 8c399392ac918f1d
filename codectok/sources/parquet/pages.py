"""Sizes of the pages in a Parquet file, by their own headers: Arrow allocates as these say.

The format is that of Apache Parquet: a header in Thrift's compact protocol before each page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from codectok.sources.stores.web import too_large

HEADER_BYTES, MAX_HEADER_BYTES = 1 << 9, 1 << 24
# Fields of a page's header, and of the headers inside it of data pages (two versions) and dictionaries.
UNCOMPRESSED, COMPRESSED, DATA, DICTIONARY, DATA_2 = 2, 3, 5, 7, 8
N_VALUES, ENCODING, ENCODING_2 = 1, 2, 4
PREFIXES = 7  # the encoding in which a value shares the beginning of the one before
# Bytes in memory of a value, by its type; a text becomes an object of Python.
WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12, "BYTE_ARRAY": 64}
# Lists that expand further than this are made to fill the memory.
MAX_EXPANSION = 200
# Rows that are read at once are fewer where each may be as long as a whole page.
BATCH_BYTES = 1 << 26
# Of the compact protocol.
STOP, TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12
MAX_DEPTH = 8


@dataclass(frozen=True)
class Page:
    """A page, by its header; `n_values` and `encoding` are 0 if unknown."""

    uncompressed: int
    n_values: int
    encoding: int
    is_dictionary: bool


def rows_at_once(file: pq.ParquetFile, opened: BinaryIO, group: int, columns: list[str], max_bytes: int) -> int:
    """Check the pages of columns of a row group, and return how many rows may be read at once.

    Args:
        file: the Parquet file.
        opened: its bytes.
        group: number of the row group.
        columns: names of columns.
        max_bytes: largest page, and largest list, that is read.

    Raises:
        AudioError: a page or list is "too_large".
    """
    metadata = file.metadata.row_group(group)
    longest = 1
    for i in range(metadata.num_columns):
        chunk = metadata.column(i)
        if not any(chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}.") for name in columns):
            continue
        where = f"{chunk.path_in_schema!r} in row group {group}"
        is_list = file.schema.column(i).max_repetition_level > 0
        width = WIDTHS.get(chunk.physical_type, 0)
        expanded = 0
        for page in _pages(opened, chunk):
            if page.uncompressed > max_bytes:
                raise too_large(f"A page of {where}", page.uncompressed, max_bytes)
            expanded += max(page.uncompressed, page.n_values * width)
            if page.is_dictionary or page.encoding == PREFIXES:
                longest = max(longest, page.uncompressed)
        if is_list and expanded > max(max_bytes, min(metadata.num_rows * max_bytes, MAX_EXPANSION * _packed(chunk))):
            raise too_large(f"A list of {where}", expanded, max_bytes)
    return max(1, BATCH_BYTES // longest)


def _packed(chunk: pq.ColumnChunkMetaData) -> int:
    size: int = chunk.total_compressed_size
    return size


def _pages(opened: BinaryIO, chunk: pq.ColumnChunkMetaData) -> Iterator[Page]:
    """Yield the pages of a column chunk, up to one whose header cannot be read, which Arrow refuses."""
    offsets = [chunk.data_page_offset, chunk.dictionary_page_offset if chunk.has_dictionary_page else None]
    position = min((offset for offset in offsets if offset), default=0)
    left: int = chunk.num_values
    while left > 0:
        found = _header(opened, position)
        if found is None:
            return
        header, size = found
        inner, is_dictionary = _inner(header), DICTIONARY in header
        n_values = _number(inner.get(N_VALUES))
        encoding = _number(inner.get(ENCODING_2 if DATA_2 in header else ENCODING))
        packed = _number(header.get(COMPRESSED))
        if packed < 0:
            return
        yield Page(_number(header.get(UNCOMPRESSED)), n_values, encoding, is_dictionary)
        position += size + packed
        left -= 0 if is_dictionary else max(0, n_values)


def _inner(header: dict[int, Any]) -> dict[int, Any]:
    found: Any = next((header[name] for name in (DATA, DATA_2, DICTIONARY) if name in header), {})
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _header(opened: BinaryIO, position: int) -> tuple[dict[int, Any], int] | None:
    """Fields and length of the header at a position; None if there is none that can be read."""
    size = HEADER_BYTES
    while size <= MAX_HEADER_BYTES:
        opened.seek(position)
        data = opened.read(size)
        try:
            reader = _Reader(data)
            return reader.struct(), reader.position
        except IndexError:
            if len(data) < size:
                return None
            size *= 8
        except ValueError:
            return None
    return None


class _Reader:
    """Reads a struct of Thrift's compact protocol; raises `IndexError` where the data ends."""

    def __init__(self, data: bytes) -> None:
        self._data, self.position = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Fields by number: numbers, structs, and None for others."""
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while (byte := self._byte()) != STOP:
            kind = byte & 15
            number = number + (byte >> 4) if byte >> 4 else self._signed()
            fields[number] = bool(kind == TRUE) if kind in (TRUE, FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind in (LIST, SET):
            byte = self._byte()
            return self._skip_all([byte & 15], byte >> 4 if byte >> 4 < 15 else self._unsigned(), depth)
        if kind == MAP:
            count = self._unsigned()
            byte = self._byte() if count else 0
            return self._skip_all([byte >> 4, byte & 15], count, depth)
        if kind in (TRUE, FALSE, BYTE):
            return self._byte()
        if kind == DOUBLE:
            return self._move(8)
        if kind == BINARY:
            return self._move(self._unsigned())
        if kind in (4, 5, 6):
            return self._signed()
        raise ValueError("an unknown type")

    def _skip_all(self, kinds: Iterable[int], count: int, depth: int) -> None:
        if count > len(self._data):
            raise IndexError
        for _ in range(count):
            for kind in kinds:
                self._value(kind, depth + 1)

    def _move(self, count: int) -> None:
        self.position += count
        if self.position > len(self._data):
            raise IndexError

    def _byte(self) -> int:
        self.position += 1
        return self._data[self.position - 1]

    def _unsigned(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number of too many bytes")
        return value | byte << shift

    def _signed(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)
