"""Rows of several token tables by id or source, for jobs that need some rows in any order."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow.parquet as pq

from codectok.errors import InputError
from codectok.sources.contents import content_in_store, content_of_file
from codectok.sources.opening import open_parquet
from codectok.sources.row_ranges import batches_between
from codectok.sources.source import Source
from codectok.sources.stores.files import info_of

from .source_rows import check_metadata, table_metadata
from .table import TableMetadata, TokenRow, hash_of_id, rows_of_batch, table_schema

# Between the name of a table and the id of a row.
QUALIFIER = "#"


@dataclass(frozen=True)
class FoundRow:
    """A row of a table, or the reason why there is none."""

    row: TokenRow | None
    problem: str = ""


class RowIndex:
    """Index of the rows of token tables by id or source: 20 bytes of memory per row.

    A reference to a row is its id, or `TABLE#ID` if several tables have the id; likewise for sources.

    Args:
        tables: files of each table, by its name.
        metadata: of all the tables.
        key: column that references name, "id" or "source".

    Raises:
        InputError: a file is damaged, or is not part of these tables.
    """

    def __init__(
        self, tables: Mapping[str, Sequence[Source]], metadata: TableMetadata, key: Literal["id", "source"] = "id"
    ) -> None:
        self._metadata, self._key = metadata, key
        self._files = [(name, source) for name, sources in tables.items() for source in sources]
        self._names = tuple(tables)
        hashes: list[np.ndarray] = []
        frames: list[np.ndarray] = []
        starts = [0]
        for _, source in self._files:
            count = 0
            for found_hashes, found_frames in _keys_of(source, metadata, key):
                hashes.append(found_hashes)
                frames.append(found_frames)
                count += len(found_hashes)
            starts.append(starts[-1] + count)
        self._starts = np.array(starts, np.int64)
        unsorted = np.concatenate([np.zeros(0, np.uint64), *hashes])
        self._rows = np.argsort(unsorted, kind="stable")
        self._hashes = unsorted[self._rows]
        self._frames = np.concatenate([np.zeros(0, np.uint32), *frames])

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._hashes)

    def count_codes(self, reference: str) -> int:
        """Return the number of codes of a row, without reading it; 0 if there is no such row."""
        frames = max((int(self._frames[row]) for row in self._places(reference)), default=0)
        return frames * self._metadata.n_codebooks

    def find(self, references: Collection[str]) -> dict[str, FoundRow]:
        """Read rows, each row group once and in order; codes have the type in which the table stores them."""
        wanted: dict[int, list[str]] = defaultdict(list)
        for reference in dict.fromkeys(references):
            for place in self._places(reference):
                wanted[place].append(reference)
        found: dict[str, list[tuple[str, TokenRow]]] = {reference: [] for reference in references}
        for number, table, row in self._read(sorted(wanted)):
            for reference in wanted[number]:
                key = getattr(row, self._key)
                if reference in (key, f"{table}{QUALIFIER}{key}"):
                    found[reference].append((table, row))
        return {reference: _chosen(reference, rows) for reference, rows in found.items()}

    def _places(self, reference: str) -> list[int]:
        """Numbers of the rows whose keys have the hash of a reference."""
        places = self._with_hash(reference)
        for name in self._names:
            if reference.startswith(f"{name}{QUALIFIER}"):
                inside = self._with_hash(reference.removeprefix(f"{name}{QUALIFIER}"))
                places += [row for row in inside if self._files[self._file_of(row)][0] == name]
        return places

    def _with_hash(self, key: str) -> list[int]:
        wanted = np.uint64(hash_of_id(key))
        first, last = (int(np.searchsorted(self._hashes, wanted, side)) for side in ("left", "right"))
        return [int(row) for row in self._rows[first:last]]

    def _file_of(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _read(self, rows: Sequence[int]) -> Iterator[tuple[int, str, TokenRow]]:
        """Yield the rows with these ascending numbers, with the number and table of each."""
        of_files: dict[int, list[int]] = defaultdict(list)
        for row in rows:
            of_files[self._file_of(row)].append(row)
        for number, inside in of_files.items():
            table, source = self._files[number]
            with open_parquet(source) as file:
                first = int(self._starts[number])
                for row, found in _rows_at(file, source, [row - first for row in inside], self._metadata):
                    yield first + row, table, found


def fingerprint_of_tables(tables: Mapping[str, Sequence[Source]]) -> dict[str, str]:
    """Hash the names, sizes, units of work and contents of the files of each table; times do not matter."""
    return {name: _fingerprint(sources) for name, sources in tables.items()}


def _fingerprint(sources: Sequence[Source]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        local = source.url is None
        content = (
            content_of_file(source.location, source.size) if local else content_in_store(info_of(source.url or ""))
        )
        digest.update(repr((source.path, source.size, table_metadata(source).unit_hash, content)).encode())
    return digest.hexdigest()[:16]


def _keys_of(source: Source, metadata: TableMetadata, key: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield hashes of the keys, and numbers of frames, of the rows of a file."""
    with open_parquet(source) as file:
        check_metadata(file, source, metadata)
        for _, batch in batches_between(file, 0, file.metadata.num_rows, [key, "n_frames"]):
            if batch[key].null_count or batch["n_frames"].null_count:
                raise InputError(f"{source.where} is damaged (a row has no {key} or no frames); write the table again.")
            hashes = np.fromiter(map(hash_of_id, batch[key].to_pylist()), np.uint64, len(batch))
            yield hashes, batch["n_frames"].to_numpy().astype(np.uint32)


def _rows_at(
    file: pq.ParquetFile, source: Source, rows: Sequence[int], metadata: TableMetadata
) -> Iterator[tuple[int, TokenRow]]:
    """Yield rows of a file by their ascending numbers, reading only the row groups that hold them."""
    check_metadata(file, source, metadata)
    names = table_schema(metadata).names
    first = place = 0
    for group in range(file.num_row_groups):
        end = first + file.metadata.row_group(group).num_rows
        inside = []
        while place < len(rows) and rows[place] < end:
            inside.append(rows[place])
            place += 1
        if inside:
            table = file.read_row_group(group, columns=names, use_threads=False)
            chosen = table.take([row - first for row in inside]).combine_chunks()
            read = (row for batch in chosen.to_batches() for row in rows_of_batch(batch, metadata, source.where))
            for number, row in zip(inside, read, strict=True):
                yield number, replace(row, codes=row.codes.astype(metadata.code_type))
        first = end


def _chosen(reference: str, rows: Sequence[tuple[str, TokenRow]]) -> FoundRow:
    if len(rows) == 1:
        return FoundRow(rows[0][1])
    if not rows:
        return FoundRow(None, f"The audio {reference} is in none of the tables.")
    tables = list(dict.fromkeys(table for table, _ in rows))
    if len(tables) == 1:
        return FoundRow(None, f"The audio {reference} is {len(rows)} times in the table {tables[0]}.")
    names = " and ".join(tables)
    example = f"{tables[0]}{QUALIFIER}ID"
    return FoundRow(None, f"The audio {reference} is in the tables {names}; write {example} for one of them.")
