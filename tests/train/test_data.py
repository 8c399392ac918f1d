"""The stream of segments is a pure function of seed and position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from codectok.errors import InputError
from codectok.train.config import DataConfig
from codectok.train.data import SegmentDataset, build_loader


def dataset(shards: Path, seed: int = 5, segment_samples: int = 6144) -> SegmentDataset:
    return SegmentDataset((shards,), 24_000, segment_samples, seed)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_going_on_in_the_middle_gives_the_same_batches(shards: Path, num_workers: int) -> None:
    config = DataConfig(shards=(shards,), batch_size=3, num_workers=num_workers)
    whole = list(build_loader(dataset(shards), config, 0, 12))
    assert len(whole) == 12
    rest = list(build_loader(dataset(shards), config, 7, 12))
    assert all(torch.equal(a, b) for a, b in zip(whole[7:], rest, strict=True))


def test_every_sample_comes_once_per_epoch_in_changing_order(shards: Path) -> None:
    data = dataset(shards)
    orders = [data._epoch_order(epoch) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(len(data))) for order in orders)
    assert not np.array_equal(*orders)


def test_another_seed_gives_another_stream(shards: Path) -> None:
    assert not torch.equal(dataset(shards, 1)[0], dataset(shards, 2)[0])


def test_short_samples_are_extended_with_zeros(shards: Path) -> None:
    segment = dataset(shards, segment_samples=11 * 24_000)[0]
    assert segment.shape == (11 * 24_000,)
    assert segment[-24_000:].abs().max() == 0
    assert segment.abs().max() > 0


def test_shards_at_another_rate_are_refused(shards: Path) -> None:
    with pytest.raises(InputError, match="24000 Hz, the codec needs 16000 Hz"):
        SegmentDataset((shards,), 16_000, 4000, 0)


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no shards\.json"):
        dataset(tmp_path)
