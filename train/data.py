"""Training segments from shards: the order is a pure function of seed and position."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from codectok.errors import InputError
from codectok.shards import read_index, read_manifest

from .config import DataConfig


class SegmentDataset(Dataset[Tensor]):
    """Segments by position in an endless stream of epochs.

    Position p is sample p % n of epoch p // n, each epoch in an order of its own; which part of the sample is taken
    depends on seed and position alone. So a run can go on from any position, with any number of loader workers.
    """

    def __init__(self, folders: tuple[Path, ...], sample_rate: int, segment_samples: int, seed: int) -> None:
        self.segment_samples = segment_samples
        self.seed = seed
        self._order: tuple[int, np.ndarray] | None = None
        self.paths: list[Path] = []
        shards, offsets, sizes = [], [], []
        self.seconds = 0.0
        digest = hashlib.sha256()
        for folder in folders:
            manifest = read_manifest(folder)
            if manifest.sample_rate != sample_rate:
                raise InputError(
                    f"The shards in {folder} are at {manifest.sample_rate} Hz, the codec needs {sample_rate} Hz;"
                    f" write them with --sample-rate {sample_rate}."
                )
            for shard in manifest.shards:
                if shard.split != "train":
                    continue
                index = read_index(folder, shard.name)
                shards.append(np.full(len(index), len(self.paths)))
                offsets.append(index["offset"].to_numpy())
                sizes.append(index["size"].to_numpy())
                self.paths.append(folder / shard.name)
                self.seconds += shard.seconds
                digest.update(shard.sha256.encode())
        if not shards:
            raise InputError(f"There are no segments in {', '.join(map(str, folders))}.")
        self.hash = digest.hexdigest()
        self._shard, self._offset, self._size = map(np.concatenate, (shards, offsets, sizes))

    def __len__(self) -> int:
        return len(self._shard)

    def __getitem__(self, position: int) -> Tensor:
        """Segment [segment_samples] at `position` of the stream; a short sample is extended with zeros."""
        epoch, place = divmod(position, len(self))
        sample = self._epoch_order(epoch)[place]
        with self.paths[self._shard[sample]].open("rb") as file:
            file.seek(self._offset[sample])
            data = file.read(self._size[sample])
        segment = np.zeros(self.segment_samples, np.float32)
        try:
            with soundfile.SoundFile(io.BytesIO(data)) as audio:
                slack = max(0, audio.frames - self.segment_samples)
                audio.seek(int(np.random.default_rng([self.seed, 1, position]).integers(slack + 1)))
                samples = audio.read(self.segment_samples, dtype="float32")
        except soundfile.LibsndfileError as error:
            raise InputError(
                f"{self.paths[self._shard[sample]]} does not fit its index: {error}; write the shards again."
            ) from None
        segment[: len(samples)] = samples
        return torch.from_numpy(segment)

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, 0, epoch]).permutation(len(self))
        return self._order[1]


class StepBatches:
    """Positions of each step's batch, from `first_step` to `last_step` (exclusive)."""

    def __init__(self, batch_size: int, first_step: int, last_step: int) -> None:
        self.batch_size, self.first_step, self.last_step = batch_size, first_step, last_step

    def __len__(self) -> int:
        return self.last_step - self.first_step

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.last_step):
            yield list(range(step * self.batch_size, (step + 1) * self.batch_size))


def build_loader(dataset: SegmentDataset, config: DataConfig, first_step: int, last_step: int) -> DataLoader[Tensor]:
    """Batches [batch_size, segment_samples] for the steps from `first_step` on."""
    batches = StepBatches(config.batch_size, first_step, last_step)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=config.num_workers,
        # Without a generator of its own the loader draws from the global one, and a resumed run would diverge.
        generator=torch.Generator(),
        pin_memory=torch.cuda.is_available(),
    )
