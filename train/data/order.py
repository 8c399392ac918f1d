"""Order of the samples of a set of shards: a pure function of seed, epoch and position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class _Epoch:
    """Shards in the order of an epoch, and the number of samples before each; the last entry is the total."""

    number: int
    shards: np.ndarray
    starts: np.ndarray


class ShardOrder:
    """An endless order of samples, each identified by its shard and its number within the shard.

    Every epoch contains each sample once: the shards are permuted, and the samples of every `window` neighbouring
    shards are permuted together. Memory grows with the number of shards and the samples of one window.

    Args:
        sizes: samples of each shard.
        window: number of shards whose samples are mixed.
        seed: numbers below 2^32 that distinguish this order from others.
    """

    def __init__(self, sizes: Sequence[int], window: int, seed: tuple[int, ...]) -> None:
        self._sizes = np.asarray(sizes, np.int64)
        self._total = int(self._sizes.sum())
        self._window = window
        self._seed = seed
        self._epoch: _Epoch | None = None
        self._permuted: tuple[int, int, np.ndarray] | None = None

    def __len__(self) -> int:
        """Number of samples in an epoch."""
        return self._total

    def locate(self, position: int) -> tuple[int, int]:
        """Return the shard of the sample at `position`, and the number of the sample within it."""
        number, place = divmod(position, self._total)
        epoch = self._epoch_at(number)
        shard_place = int(np.searchsorted(epoch.starts, place, side="right")) - 1
        window = shard_place // self._window
        first = int(epoch.starts[window * self._window])
        mixed = first + int(self._permutation(epoch, window)[place - first])
        shard_place = int(np.searchsorted(epoch.starts, mixed, side="right")) - 1
        return int(epoch.shards[shard_place]), mixed - int(epoch.starts[shard_place])

    def _epoch_at(self, number: int) -> _Epoch:
        if self._epoch is None or self._epoch.number != number:
            shards = self._generator(number, 0).permutation(len(self._sizes))
            starts = np.concatenate([[0], np.cumsum(self._sizes[shards])])
            self._epoch = _Epoch(number, shards, starts)
        return self._epoch

    def _permutation(self, epoch: _Epoch, window: int) -> np.ndarray:
        if self._permuted is None or self._permuted[:2] != (epoch.number, window):
            first, end = window * self._window, min((window + 1) * self._window, len(self._sizes))
            n_samples = int(epoch.starts[end] - epoch.starts[first])
            self._permuted = (epoch.number, window, self._generator(epoch.number, window + 1).permutation(n_samples))
        return self._permuted[2]

    def _generator(self, epoch: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([*self._seed, epoch, purpose])
