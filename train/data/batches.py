"""Batches of one rank, assembled from its share of every global batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from codectok.errors import CodectokError

from .config import DataConfig
from .segments import SegmentReader
from .workers import in_shared_memory, shared_memory_error


@dataclass(frozen=True)
class Batch:
    """One rank's share of a global batch.

    Attributes:
        waveforms: float32 [B, T]; zeros where the mask is False.
        mask: bool [B], True where a slot holds a segment.
        keys: of the samples, damaged ones included; fewer than B if the ranks' shares differ in size.
        errors: errors of the damaged samples, in order.
        position: position in the stream after the global batch.
        fallback: [T], the next usable segment of the stream if the whole share is damaged, otherwise None.
    """

    waveforms: Tensor
    mask: Tensor
    keys: tuple[str, ...]
    errors: tuple[str, ...]
    position: int
    fallback: Tensor | None = None

    def filled(self) -> Tensor:
        """Waveforms [B, T] with empty slots filled by repeating the valid ones, or by `fallback` if none is valid.

        Nothing but real segments is trained on, and the shape is the same for every batch and rank.
        """
        if self.fallback is not None:
            return self.fallback.expand_as(self.waveforms)
        count = int(self.mask.sum())
        if count == len(self.mask):
            return self.waveforms
        numbers = torch.arange(len(self.mask))
        numbers[~self.mask] = numbers[self.mask][torch.arange(len(self.mask) - count) % count]
        return self.waveforms[numbers]

    def pin_memory(self) -> Batch:
        """Return a copy in pinned memory, which is transferred to a GPU faster."""
        fallback = None if self.fallback is None else self.fallback.pin_memory()
        return replace(self, waveforms=self.waveforms.pin_memory(), fallback=fallback)


class RankBatches(Dataset["Batch | CodectokError"]):
    """Batches of one rank, indexed by the first position of the global batch.

    Errors are returned as values for the parent process to raise: torch would pack them into a traceback.
    """

    def __init__(self, reader: SegmentReader, config: DataConfig, rank: int, world_size: int) -> None:
        batch_size = config.batch_size
        self._reader, self._batch_size = reader, batch_size
        self._max_damaged = config.max_unreadable_in_a_row
        self._first, self._end = (batch_size * number // world_size for number in (rank, rank + 1))
        # Ranks with a smaller share have an empty slot, so that shapes are the same on all ranks.
        self._n_slots = math.ceil(batch_size / world_size)
        self._buffer: np.ndarray | None = None

    def __getitem__(self, position: int) -> Batch | CodectokError:
        if self._buffer is None:
            self._buffer = np.zeros((self._n_slots, self._reader.segment_samples), np.float32)
        positions = range(position + self._first, position + self._end)
        try:
            segments = self._reader.read(positions, self._buffer[: len(positions)])
            all_damaged = all(segment.error is not None for segment in segments)
            fallback = self._next_usable(positions.stop) if all_damaged else None
            # Copies the buffer, in a worker process into memory shared with the parent.
            waveforms = default_collate([torch.from_numpy(row) for row in self._buffer])
            mask = in_shared_memory(_mask([segment.error is None for segment in segments], self._n_slots))
            fallback = None if fallback is None else in_shared_memory(fallback)
        except CodectokError as error:
            return error
        except RuntimeError as error:
            if "shared memory" not in str(error):
                raise
            return shared_memory_error()
        return Batch(
            waveforms,
            mask=mask,
            keys=tuple(segment.key for segment in segments),
            errors=tuple(segment.error for segment in segments if segment.error is not None),
            position=position + self._batch_size,
            fallback=fallback,
        )

    def _next_usable(self, position: int) -> Tensor:
        """The first undamaged segment at or after `position`; it is also read in its own turn.

        Raises:
            CodectokError: there are `max_unreadable_in_a_row` damaged segments.
        """
        last_error = ""
        for place in range(position, position + self._max_damaged):
            (segment,) = self._reader.read([place])
            if segment.error is None:
                return torch.from_numpy(segment.waveform)
            last_error = segment.error
        raise too_many_damaged(self._max_damaged, last_error)


def too_many_damaged(count: int, last_error: str) -> CodectokError:
    """The error for `count` damaged samples in a row, of which the last one has `last_error`."""
    return CodectokError(
        f"{count} samples in a row could not be used, the last one because: {last_error}"
        " Run `codectok verify` to list all damaged samples, or raise data.max_unreadable_in_a_row."
    )


def _mask(valid: Sequence[bool], n_slots: int) -> Tensor:
    return torch.tensor([*valid, *[False] * (n_slots - len(valid))])
