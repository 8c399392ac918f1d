"""Loads batches of segments for one rank; the stream is the same for any number of ranks and workers."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from codectok.errors import CodectokError, InputError

from .batches import Batch, RankBatches, too_many_damaged
from .config import DataConfig
from .segments import SegmentReader
from .workers import reading, start_worker

log = logging.getLogger(__name__)


@dataclass
class Damaged:
    """Numbers of damaged samples.

    Attributes:
        total: so far.
        in_a_row: without a usable one between them, the last sample included.
    """

    total: int = 0
    in_a_row: int = 0


class SegmentLoader:
    """Endless batches of one rank, from any position of the stream.

    The slot of a damaged sample is masked; the sample is counted and logged, and too many in a row end the run.

    Args:
        reader: reads the segments.
        config: training data.
        position: number of samples consumed so far, on all ranks together.
        rank: number of this rank.
        world_size: number of ranks that share each global batch.
        pin_memory: load batches into memory from which a GPU copies faster.

    Attributes:
        position: position after the last batch returned.
        damaged: numbers of damaged samples of this rank.

    Raises:
        InputError: there are more ranks than samples in a batch.
    """

    def __init__(
        self,
        reader: SegmentReader,
        config: DataConfig,
        position: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        if world_size > config.batch_size:
            raise InputError(
                f"A batch of {config.batch_size} segments cannot be shared by {world_size} ranks;"
                f" set data.batch_size to at least {world_size}."
            )
        self.position = position
        self.damaged = Damaged()
        self._config, self._pin_memory = config, pin_memory
        self._batches = RankBatches(reader, config, rank, world_size)

    def __iter__(self) -> Generator[Batch]:
        """Iterate over batches from `position` on; close the iterator to end the workers.

        Raises:
            PassingError: a worker process died, or a store did not answer.
            CodectokError: a shard is missing, or too many samples in a row are damaged.
        """
        loader = DataLoader(
            self._batches,
            batch_size=None,
            sampler=_Positions(self.position, self._config.batch_size),
            num_workers=self._config.num_workers,
            worker_init_fn=start_worker,
            # Without its own generator the loader draws from the global one, and a resumed run would diverge.
            generator=torch.Generator(),
            pin_memory=self._pin_memory,
        )
        with reading(loader) as batches:
            for batch in batches:
                if isinstance(batch, CodectokError):
                    raise batch
                self._count_unreadable(batch)
                self.position = batch.position
                yield batch

    def _count_unreadable(self, batch: Batch) -> None:
        errors = iter(batch.errors)
        for valid in batch.mask[: len(batch.keys)].tolist():
            if valid:
                self.damaged.in_a_row = 0
                continue
            error = next(errors)
            log.warning(error)
            self.damaged.total += 1
            self.damaged.in_a_row += 1
            if self.damaged.in_a_row >= self._config.max_unreadable_in_a_row:
                raise too_many_damaged(self.damaged.in_a_row, error)


class _Positions:
    """Sampler of the first positions of global batches."""

    def __init__(self, first: int, step: int) -> None:
        self._first, self._step = first, step

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self._first, self._step)
