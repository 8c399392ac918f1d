"""A dataset for training: the rows of a token table, divided among ranks and loading workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from codectok.errors import InputError

if TYPE_CHECKING:
    from .reader import TokenTable


class TokenDataset(IterableDataset[dict[str, Any]]):
    """Rows as dictionaries of `id`, `codes` (LongTensor [n_frames, n_codebooks]), `text`, `language`, `speaker`.

    Batches of `batch_size` rows are distributed over the ranks in turn, and within a rank over the workers of a
    DataLoader with the same `batch_size`. Batches are therefore the same for any number of workers, and after n batches
    per rank training resumes with `start = n * batch_size * world_size`, also on another number of ranks.

    Args:
        table: the table to read.
        batch_size: of the DataLoader.
        rank, world_size: of this process.
        start: number of rows of the epoch already read by all ranks, in the order of this dataset.
        seed: shuffles row groups, and rows within each group; None to keep the order of the table.
        drop_last: drop the rows that do not fill a batch for every rank.
        epoch: number of the epoch, from 0; with a seed each epoch has another order, see `set_epoch`.

    Raises:
        InputError: the rank, the batch size, the start, the seed or the epoch is out of range.
    """

    def __init__(
        self,
        table: TokenTable,
        batch_size: int = 1,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        seed: int | None = None,
        drop_last: bool = True,
        epoch: int = 0,
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world_size:
            raise InputError(f"Rank {rank} of {world_size} with batches of {batch_size} rows is impossible.")
        if seed is not None and seed < 0:
            raise InputError(f"The seed must be at least 0, not {seed}.")
        self._table, self._batch_size, self._rank, self._world_size = table, batch_size, rank, world_size
        self._seed, self._drop_last = seed, drop_last
        # Shared with the workers of a DataLoader, so that persistent ones see a new epoch.
        self._place = torch.zeros(2, dtype=torch.int64)
        self._place.share_memory_()  # type: ignore[no-untyped-call]
        self._move(epoch, start)
        self._read = self._to_skip = 0

    def __len__(self) -> int:
        """Number of remaining rows of this rank."""
        return sum(end - first for first, end in self._batches(0, 1))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Iterate over the rows of this rank; in a DataLoader worker, over the rows of its batches."""
        self._read, self._to_skip = self._to_skip, 0
        return self._rows(self._read)

    def set_epoch(self, epoch: int) -> None:
        """Begin epoch `epoch` with the next iteration; the current epoch stays at its `start`.

        Raises:
            InputError: the epoch is negative.
        """
        if epoch != self._epoch:
            self._move(epoch, 0)
            self._read = self._to_skip = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position of this copy of the dataset, as the StatefulDataLoader of torchdata saves it.

        A plain DataLoader with workers reads ahead in copies, so that there `start` is needed instead.
        """
        return {**self._order_options, "epoch": self._epoch, "start": self._start, "read": self._read}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at the position `state` with the next iteration.

        Raises:
            InputError: the state is of another number of ranks, batch size, seed or `drop_last`.
        """
        for name, value in self._order_options.items():
            if state.get(name) != value:
                raise InputError(
                    f"The state of a dataset with {name} {state.get(name)} does not fit one with {name} {value}; pass"
                    " epoch and start instead."
                )
        self._move(state["epoch"], state["start"])
        self._read = self._to_skip = state["read"]

    @property
    def _order_options(self) -> dict[str, int | None]:
        names = ("batch_size", "world_size", "seed", "drop_last")
        return dict(zip(names, (self._batch_size, self._world_size, self._seed, self._drop_last), strict=True))

    @property
    def _epoch(self) -> int:
        return int(self._place[0])

    @property
    def _start(self) -> int:
        return int(self._place[1])

    def _move(self, epoch: int, start: int) -> None:
        if epoch < 0:
            raise InputError(f"The epoch must be at least 0, not {epoch}.")
        if start < 0:
            raise InputError(f"The start must be a number of rows, not {start}.")
        self._place[0], self._place[1] = epoch, start

    def _rows(self, n_skipped: int) -> Iterator[dict[str, Any]]:
        """Yield the rows of this copy, without the first `n_skipped` ones."""
        info = get_worker_info()
        worker, n_workers = (0, 1) if info is None else (info.id, info.num_workers)
        epoch = self._epoch
        order, starts = self._group_order(epoch)
        shuffled = -1, np.empty(0, np.int64)
        for first, end in list(self._batches(worker, n_workers)):
            n_left_out = min(n_skipped, end - first)
            n_skipped -= n_left_out
            for position in range(first + n_left_out, end):
                place = int(np.searchsorted(starts, position, side="right")) - 1
                if shuffled[0] != place:
                    shuffled = place, self._row_order(order[place], epoch)
                group = self._table.groups[order[place]]
                row = self._table.rows_of(group)[shuffled[1][position - starts[place]]]
                self._read += 1
                yield {
                    "id": row.id,
                    "codes": torch.from_numpy(row.codes),
                    "text": row.text or "",
                    "language": row.language or "",
                    "speaker": row.speaker or "",
                }

    def _batches(self, worker: int, n_workers: int) -> Iterator[tuple[int, int]]:
        """Yield first row and end of each batch, in the order of this dataset."""
        step, left = self._batch_size * self._world_size, max(0, len(self._table) - self._start)
        everything = self._start + (left // step * step if self._drop_last else left)
        own = self._start + self._rank * self._batch_size
        for first in range(own + worker * step, everything, n_workers * step):
            yield first, min(first + self._batch_size, everything)

    def _group_order(self, epoch: int) -> tuple[list[int], np.ndarray]:
        """Return the row groups in the order of an epoch, and the first row of each in that order."""
        count = len(self._table.groups)
        order = list(range(count))
        if self._seed is not None:
            order = np.random.default_rng([self._seed, 0, epoch]).permutation(count).tolist()
        sizes = [self._table.groups[number].n_rows for number in order]
        return order, np.cumsum([0, *sizes])[:-1]

    def _row_order(self, group: int, epoch: int) -> np.ndarray:
        n_rows = self._table.groups[group].n_rows
        if self._seed is None:
            return np.arange(n_rows)
        return np.random.default_rng([self._seed, group, epoch]).permutation(n_rows)
