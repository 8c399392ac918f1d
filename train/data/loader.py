"""Batches of segments, on any number of ranks and workers."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from codectok.errors import CodectokError, InputError, PassingError
from codectok.train.signals import leave_signals_to_the_run

from .config import DataConfig
from .segments import SegmentDataset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """A rank's part of a global batch.

    Attributes:
        waveforms: [B, T]; silence where the mask is False.
        mask: [B], which slots hold a segment.
        keys: of the samples, also of damaged ones; less than B where the ranks' parts of a batch are not equal.
        errors: what is wrong with the damaged ones, in their order.
        position: of the stream after the global batch.
        stand_in: [T], the next usable segment of the stream where all of this part are damaged.
    """

    waveforms: Tensor
    mask: Tensor
    keys: tuple[str, ...]
    errors: tuple[str, ...]
    position: int
    stand_in: Tensor | None = None

    def filled(self) -> Tensor:
        """The waveforms [B, T], with those of other slots again in the empty ones, or `stand_in` where all are empty.

        So nothing unheard is learned from, and the shape, which ranks share, is always the same.
        """
        if self.stand_in is not None:
            return self.stand_in.expand_as(self.waveforms)
        count = int(self.mask.sum())
        if count == len(self.mask):
            return self.waveforms
        numbers = torch.arange(len(self.mask))
        numbers[~self.mask] = numbers[self.mask][torch.arange(len(self.mask) - count) % count]
        return self.waveforms[numbers]

    def pin_memory(self) -> Batch:
        """A copy that goes to a GPU faster."""
        stand_in = None if self.stand_in is None else self.stand_in.pin_memory()
        return replace(self, waveforms=self.waveforms.pin_memory(), stand_in=stand_in)


class SegmentLoader:
    """Endless batches of a rank from a position on; the same stream for any number of ranks and workers.

    A damaged sample leaves its slot masked, is counted and logged, and too many in a row end the run.

    Args:
        position: how many samples have been consumed, on all ranks together.
        rank, world_size: whose batches, and how many ranks share the global batch.

    Attributes:
        dataset: where the segments come from.
        position: after the last batch that was given.
        n_unreadable: damaged samples so far.

    Raises:
        InputError: there are more ranks than samples in a batch.
    """

    def __init__(
        self, dataset: SegmentDataset, config: DataConfig, position: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if world_size > config.batch_size:
            raise InputError(
                f"A batch of {config.batch_size} segments cannot be shared by {world_size} ranks;"
                f" set data.batch_size to at least {world_size}."
            )
        self.dataset = dataset
        self.position = position
        self.n_unreadable = 0
        self._config = config
        self._batches = _RankBatches(dataset, config, rank, world_size)
        self._in_a_row = 0

    def __iter__(self) -> Iterator[Batch]:
        """Batches from `position` on.

        Raises:
            CodectokError: shards cannot be read any more, or too many samples in a row are damaged.
        """
        loader = DataLoader(
            self._batches,
            batch_size=None,
            sampler=_Positions(self.position, self._config.batch_size),
            num_workers=self._config.num_workers,
            worker_init_fn=_start_worker,
            # Without a generator of its own the loader draws from the global one, and a resumed run would diverge.
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
        )
        batches = iter(loader)
        for batch in _received(batches) if self._config.num_workers else batches:
            if isinstance(batch, CodectokError):
                raise batch
            self._count_unreadable(batch)
            self.position = batch.position
            yield batch

    def _count_unreadable(self, batch: Batch) -> None:
        errors = iter(batch.errors)
        for valid in batch.mask[: len(batch.keys)].tolist():
            if valid:
                self._in_a_row = 0
                continue
            error = next(errors)
            log.warning(error)
            self.n_unreadable += 1
            self._in_a_row += 1
            if self._in_a_row >= self._config.max_unreadable_in_a_row:
                raise _too_many_damaged(self._in_a_row, error)


@contextmanager
def worker_deaths_explained() -> Iterator[None]:
    """Says in one sentence that a worker died; torch may raise this wherever the program happens to be."""
    try:
        yield
    except RuntimeError as error:
        if not is_death_of_a_worker(error):
            raise
        raise _death_of_a_worker(error) from None


def is_death_of_a_worker(error: RuntimeError) -> bool:
    """Whether it says that, and nothing about what the program was doing."""
    return str(error).startswith("DataLoader worker")


def _received(batches: Iterator[Batch | CodectokError]) -> Iterator[Batch | CodectokError]:
    """What workers send, as it comes."""
    while True:
        try:
            batch = next(batches)
        except (ConnectionError, EOFError) as error:  # it died while a batch was on its way
            raise _death_of_a_worker(error) from None
        yield batch


def _death_of_a_worker(error: Exception) -> PassingError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
    return PassingError(
        f"A process that reads training data died ({reason});"
        " the same command goes on from the last checkpoint, and fewer data.num_workers need less memory."
    )


def _too_many_damaged(count: int, last_error: str) -> CodectokError:
    return CodectokError(
        f"{count} samples in a row could not be used, the last because: {last_error}"
        " `codectok verify` says what else is damaged; data.max_unreadable_in_a_row allows more."
    )


class _Positions:
    """First positions of global batches."""

    def __init__(self, first: int, step: int) -> None:
        self._first, self._step = first, step

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self._first, self._step)


class _RankBatches(Dataset["Batch | CodectokError"]):
    """A rank's batches by the first position of the global batch; an error is a value, for the parent to raise."""

    def __init__(self, dataset: SegmentDataset, config: DataConfig, rank: int, world_size: int) -> None:
        batch_size = config.batch_size
        self._dataset, self._batch_size = dataset, batch_size
        self._most_damaged = config.max_unreadable_in_a_row
        self._first, self._end = (batch_size * part // world_size for part in (rank, rank + 1))
        # Ranks whose part is smaller have an empty slot: shapes are the same everywhere.
        self._n_slots = math.ceil(batch_size / world_size)
        self._buffer: np.ndarray | None = None

    def __getitem__(self, position: int) -> Batch | CodectokError:
        if self._buffer is None:
            self._buffer = np.zeros((self._n_slots, self._dataset.segment_samples), np.float32)
        positions = range(position + self._first, position + self._end)
        try:
            segments = self._dataset.segments(positions, self._buffer[: len(positions)])
            all_damaged = all(segment.error is not None for segment in segments)
            stand_in = self._next_usable(positions.stop) if all_damaged else None
            # A copy, in a worker one in memory that is shared with the parent.
            waveforms = default_collate([torch.from_numpy(row) for row in self._buffer])
            mask = _shared(_mask([segment.error is None for segment in segments], self._n_slots))
            stand_in = None if stand_in is None else _shared(stand_in)
        except CodectokError as error:
            return error
        except RuntimeError as error:
            if "shared memory" not in str(error):
                raise
            return _too_little_shared_memory()
        return Batch(
            waveforms,
            mask=mask,
            keys=tuple(segment.key for segment in segments),
            errors=tuple(segment.error for segment in segments if segment.error is not None),
            position=position + self._batch_size,
            stand_in=stand_in,
        )

    def _next_usable(self, position: int) -> Tensor:
        """The first segment from `position` on that is not damaged; it is heard in its own turn too.

        Raises:
            CodectokError: there is none among as many as may be damaged in a row.
        """
        for place in range(position, position + self._most_damaged):
            (segment,) = self._dataset.segments(range(place, place + 1))
            if segment.error is None:
                return torch.from_numpy(segment.waveform)
        assert segment.error is not None, "at least one was looked at"
        raise _too_many_damaged(self._most_damaged, segment.error)


def _mask(valid: Sequence[bool], n_slots: int) -> Tensor:
    return torch.tensor([*valid, *[False] * (n_slots - len(valid))])


def _shared(tensor: Tensor) -> Tensor:
    """Where the parent sees it, in a worker: what fails later, as a batch is sent, would leave the parent waiting."""
    return tensor if get_worker_info() is None else tensor.share_memory_()


def _too_little_shared_memory() -> InputError:
    return InputError(
        "The batches that processes read ahead do not fit into shared memory (/dev/shm); give the container more, as in"
        " docker run --shm-size=8g, or lower data.num_workers (0 needs none)."
    )


def _start_worker(_: int) -> None:
    leave_signals_to_the_run()
