"""Reads token tables: metadata, rows in order, rows by id, and a dataset for training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from codectok.errors import InputError

from .table import TableFile, TokenRow, hash_of_id, read_ids, read_metadata, read_rows, rows_of_group, table_files


@dataclass(frozen=True)
class RowGroup:
    """A row group of a file; `first_row` is the number of its first row within the table."""

    file: TableFile
    number: int
    first_row: int
    n_rows: int


class TokenTable:
    """A token table: codes of clips, encoded by one codec.

    Args:
        path: a Parquet file or a folder of them, or the URL of either.
        allow_mixed: accept files of one codec whose codes were computed differently, on a CPU and a GPU for example.

    Attributes:
        metadata: the codec and its settings.
        groups: row groups, in order.

    Raises:
        InputError: `path` is not a token table, or is mixed; the message names the difference.
    """

    def __init__(self, path: str | Path, allow_mixed: bool = False) -> None:
        self.path = path
        self.metadata = read_metadata(self.path, allow_mixed)
        self._allow_mixed = allow_mixed
        self.groups: list[RowGroup] = []
        for file in table_files(self.path):
            with file.open() as parquet:
                sizes = parquet.metadata
            for number in range(sizes.num_row_groups):
                group = RowGroup(file, number, len(self), sizes.row_group(number).num_rows)
                self.groups.append(group)

    def __len__(self) -> int:
        """Number of rows."""
        return self.groups[-1].first_row + self.groups[-1].n_rows if self.groups else 0

    def __iter__(self) -> Iterator[TokenRow]:
        """Iterate over all rows in order, in bounded memory."""
        return read_rows(self.path, allow_mixed=self._allow_mixed)

    def __getitem__(self, row_id: str) -> TokenRow:
        """Return the row with an id; the first call reads all ids (16 bytes of memory per row).

        Raises:
            InputError: the table has no such row.
        """
        hashes, rows = self._index
        wanted = np.uint64(hash_of_id(row_id))
        place = int(np.searchsorted(hashes, wanted))
        while place < len(hashes) and hashes[place] == wanted:
            row = self.row(int(rows[place]))
            if row.id == row_id:
                return row
            place += 1
        raise InputError(f"{self.path} has no row {row_id}.")

    def group_of(self, number: int) -> RowGroup:
        """Return the row group that holds row `number`."""
        starts = [group.first_row for group in self.groups]
        return self.groups[int(np.searchsorted(starts, number, side="right")) - 1]

    def row(self, number: int) -> TokenRow:
        """Return row `number`, from 0 to `len(table) - 1`."""
        group = self.group_of(number)
        return self.rows_of(group)[number - group.first_row]

    def rows_of(self, group: RowGroup) -> list[TokenRow]:
        """Return the rows of a group; the last group is cached."""
        if self._held is None or self._held[0] != group:
            self._held = (group, rows_of_group(group.file, group.number, self.metadata))
        return self._held[1]

    def to_torch_dataset(
        self,
        batch_size: int = 1,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        seed: int | None = None,
        drop_last: bool = True,
    ) -> TokenDataset:
        """Return the rows as a dataset for training, see `TokenDataset`."""
        return TokenDataset(self, batch_size, rank, world_size, start, seed, drop_last)

    _held: tuple[RowGroup, list[TokenRow]] | None = None

    @cached_property
    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted hashes of all ids, and the row number of each."""
        hashes = np.empty(len(self), np.uint64)
        for position, row_id in enumerate(read_ids(self.path)):
            hashes[position] = hash_of_id(row_id)
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order


def open_table(path: str | Path, allow_mixed: bool = False) -> TokenTable:
    """Open the token table at `path`, see `TokenTable`."""
    return TokenTable(path, allow_mixed)


class TokenDataset(IterableDataset[dict[str, Any]]):
    """Rows as dictionaries of `id`, `codes` (LongTensor [n_frames, n_codebooks]), `text`, `language`, `speaker`.

    Batches of `batch_size` rows are distributed over the ranks in turn, and within a rank over the workers of a
    DataLoader with the same `batch_size`. Batches are therefore the same for any number of workers, and after n batches
    per rank training resumes with `start = n * batch_size * world_size`, also on another number of ranks.

    Args:
        table: the table to read.
        batch_size: of the DataLoader.
        rank, world_size: of this process.
        start: number of rows already read, in the order of this dataset.
        seed: shuffles row groups, and rows within each group; None to keep the order of the table.
        drop_last: drop the rows that do not fill a batch for every rank.

    Raises:
        InputError: the rank, the batch size or the start is out of range.
    """

    def __init__(
        self,
        table: TokenTable,
        batch_size: int,
        rank: int,
        world_size: int,
        start: int,
        seed: int | None,
        drop_last: bool,
    ) -> None:
        step = batch_size * world_size
        if batch_size < 1 or not 0 <= rank < world_size:
            raise InputError(f"Rank {rank} of {world_size} with batches of {batch_size} rows is impossible.")
        if start < 0:
            raise InputError(f"The start must be a number of rows, not {start}.")
        self._table, self._batch_size, self._rank, self._world_size = table, batch_size, rank, world_size
        self._start, self._seed = start, seed
        left = max(0, len(table) - start)
        self._end = start + (left // step * step if drop_last else left)

    def __len__(self) -> int:
        """Number of remaining rows of this rank."""
        return sum(end - first for first, end in self._batches(0, 1))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Iterate over the rows of this rank; in a DataLoader worker, over the rows of its batches."""
        info = get_worker_info()
        worker, n_workers = (0, 1) if info is None else (info.id, info.num_workers)
        order, starts = self._order()
        for first, end in self._batches(worker, n_workers):
            for position in range(first, end):
                place = int(np.searchsorted(starts, position, side="right")) - 1
                group = self._table.groups[order[place]]
                number = position - int(starts[place])
                row = self._table.rows_of(group)[self._row_order(order[place])[number]]
                yield {
                    "id": row.id,
                    "codes": torch.from_numpy(row.codes),
                    "text": row.text or "",
                    "language": row.language or "",
                    "speaker": row.speaker or "",
                }

    def _batches(self, worker: int, n_workers: int) -> Iterator[tuple[int, int]]:
        """Yield first row and end of each batch, in the order of this dataset."""
        own = self._start + self._rank * self._batch_size
        step = self._batch_size * self._world_size
        for first in range(own + worker * step, self._end, n_workers * step):
            yield first, min(first + self._batch_size, self._end)

    def _order(self) -> tuple[list[int], np.ndarray]:
        """Return the row groups in the order of this dataset, and the first row of each in that order."""
        count = len(self._table.groups)
        order = (
            list(range(count)) if self._seed is None else np.random.default_rng(self._seed).permutation(count).tolist()
        )
        sizes = [self._table.groups[number].n_rows for number in order]
        return order, np.cumsum([0, *sizes])[:-1]

    def _row_order(self, group: int) -> np.ndarray:
        if self._row_orders is None or self._row_orders[0] != group:
            n_rows = self._table.groups[group].n_rows
            rows = np.arange(n_rows)
            if self._seed is not None:
                rows = np.random.default_rng([self._seed, group]).permutation(n_rows)
            self._row_orders = (group, rows)
        return self._row_orders[1]

    _row_orders: tuple[int, np.ndarray] | None = None
