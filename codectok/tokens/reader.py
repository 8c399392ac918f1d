"""Reads token tables: metadata, rows in order, and rows by id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from codectok.errors import InputError

from .table import TableFile, TokenRow, hash_of_id, read_ids, read_metadata, read_rows, rows_of_group, table_files

if TYPE_CHECKING:
    from .dataset import TokenDataset


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
        epoch: int = 0,
    ) -> TokenDataset:
        """Return the rows as a dataset for training, see `TokenDataset`."""
        from .dataset import TokenDataset  # brings torch

        return TokenDataset(self, batch_size, rank, world_size, start, seed, drop_last, epoch)

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
