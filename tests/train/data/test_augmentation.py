"""Augmentation: the same changes for any workers, ranks and resumes; levels, backgrounds and limits as configured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from codectok.errors import ConfigError
from codectok.train import SegmentLoader, load_train_config
from codectok.train.data.augmentation import Change, apply_change, draw_change
from codectok.train.data.config import AugmentationConfig
from tests.train.conftest import write_shards
from tests.train.data.test_loader import batches, data_config, segment_reader

RATE = 8000
UNCHANGED = Change(gain=0.0, background=None, background_level=0.0, limit=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards") / "all", [3, 5, 2, 6])


def sine(hertz: float, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)).astype(np.float32)


def changed(change: Change, waveform: np.ndarray, background: np.ndarray | None = None) -> np.ndarray:
    copy = waveform.copy()
    apply_change(change, copy, background, RATE)
    return copy


@pytest.mark.parametrize("num_workers", [0, 2])
def test_segments_do_not_depend_on_workers_ranks_and_resumes(folder: Path, num_workers: int) -> None:
    config = data_config(shards=folder, augmentation={"background": 0.5}, num_workers=num_workers)
    expected = torch.cat([segment for batch in batches(config, 8) for segment in batch.waveforms.unsqueeze(1)])
    plain = torch.cat([batch.waveforms for batch in batches(data_config(shards=folder), 8)])
    assert not torch.equal(expected, plain)
    resumed = batches(config, 5, position=3 * config.batch_size)
    assert torch.equal(torch.cat([batch.waveforms for batch in resumed]), expected[3 * config.batch_size :])
    ranks = [batches(config, 8, rank=rank, world_size=2) for rank in range(2)]
    together = [torch.cat([one.waveforms, other.waveforms]) for one, other in zip(*ranks, strict=True)]
    assert torch.equal(torch.cat(together), expected)


def test_changes_are_within_their_bounds_and_shares() -> None:
    config = AugmentationConfig(gain=(-9, 3), background=0.4, background_level=(-20, -5), limit=0.2)
    changes = [draw_change(config, 7, position) for position in range(4000)]
    assert changes == [draw_change(config, 7, position) for position in range(4000)]
    assert changes != [draw_change(config, 8, position) for position in range(4000)]
    assert all(-9 <= change.gain <= 3 and -20 <= change.background_level <= -5 for change in changes)
    backgrounds = [
        position - change.background for position, change in enumerate(changes) if change.background is not None
    ]
    limits = [change.limit for change in changes if change.limit is not None]
    assert min(backgrounds) == 1
    assert len(backgrounds) / 4000 == pytest.approx(0.4, abs=0.03)
    assert len(limits) / 4000 == pytest.approx(0.2, abs=0.03)
    assert all(3000 <= limit <= 10_000 for limit in limits)


def test_gain_scales_and_full_scale_is_kept() -> None:
    np.testing.assert_allclose(changed(Change(-6.0, None, 0.0, None), sine(440)), sine(440) * 10**-0.3, rtol=1e-5)
    assert np.abs(changed(Change(20.0, None, 0.0, None), sine(440))).max() == pytest.approx(1.0)
    np.testing.assert_array_equal(changed(UNCHANGED, sine(440)), sine(440))


def test_background_has_its_level() -> None:
    mixed = changed(Change(0.0, 0, -10.0, None), sine(440, 0.3), sine(1000, 0.8))
    np.testing.assert_allclose(mixed - sine(440, 0.3), sine(1000, 0.3 * 10**-0.5), atol=1e-6)


def test_silence_is_mixed_with_nothing_and_damage_adds_nothing() -> None:
    silence = np.zeros(RATE, np.float32)
    mix = Change(0.0, 0, 0.0, None)
    np.testing.assert_array_equal(changed(mix, silence, sine(440)), silence)
    np.testing.assert_array_equal(changed(mix, sine(440), silence), sine(440))


def test_limit_removes_what_is_above_it() -> None:
    limited = changed(Change(0.0, None, 0.0, 1500.0), sine(440) + sine(3000, 0.2))
    np.testing.assert_allclose(limited, sine(440), atol=1e-5)


def test_first_segment_has_no_background(folder: Path) -> None:
    config = data_config(shards=folder, augmentation={"background": 1.0, "gain": [0, 0], "limit": 0.0})
    loader = SegmentLoader(segment_reader(config), config, 0, 0, 1)
    first = next(iter(loader)).waveforms[0]
    plain = batches(data_config(shards=folder), 1)[0].waveforms[0]
    assert torch.equal(first, plain)


@pytest.mark.parametrize("setting", ["gain=[3, -3]", "background=1.5", "limit_hertz=[0, 100]", "gain=[-500, 0]"])
def test_impossible_settings_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="augmentation"):
        load_train_config("nano", [f"data.augmentation.{setting}"])
