"""Augmentation: the same changes for any workers, ranks and resumes; levels, backgrounds and limits as configured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from codectok.errors import ConfigError
from codectok.train import SegmentLoader, load_train_config
from codectok.train.data import segments
from codectok.train.data.augmentation import (
    FARTHEST_BACKGROUND,
    SegmentAugmentation,
    augment,
    change_speed,
    draw_augmentation,
)
from codectok.train.data.config import AugmentationConfig
from codectok.train.data.sources import SampleAddress
from tests.train.conftest import damage, write_shards
from tests.train.data.test_loader import batches, data_config, segment_reader

RATE = 8000
UNCHANGED = SegmentAugmentation(gain=0.0, background_position=None, background_level=0.0, low_pass_hertz=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards") / "all", [3, 5, 2, 6])


def sine(hertz: float, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)).astype(np.float32)


def augmented(
    augmentation: SegmentAugmentation, waveform: np.ndarray, background: np.ndarray | None = None
) -> np.ndarray:
    copy = waveform.copy()
    augment(augmentation, copy, background, RATE)
    return copy


@pytest.mark.parametrize("num_workers", [0, 2])
def test_segments_do_not_depend_on_workers_ranks_and_resumes(folder: Path, num_workers: int) -> None:
    augmentation = {"background_share": 0.5, "speed": (0.7, 1.5)}
    config = data_config(shards=folder, augmentation=augmentation, num_workers=num_workers)
    expected = torch.cat([segment for batch in batches(config, 8) for segment in batch.waveforms.unsqueeze(1)])
    plain = torch.cat([batch.waveforms for batch in batches(data_config(shards=folder), 8)])
    assert not torch.equal(expected, plain)
    resumed = batches(config, 5, position=3 * config.batch_size)
    assert torch.equal(torch.cat([batch.waveforms for batch in resumed]), expected[3 * config.batch_size :])
    ranks = [batches(config, 8, rank=rank, world_size=2) for rank in range(2)]
    together = [torch.cat([one.waveforms, other.waveforms]) for one, other in zip(*ranks, strict=True)]
    assert torch.equal(torch.cat(together), expected)


def test_augmentation_is_within_its_bounds_and_shares() -> None:
    config = AugmentationConfig(gain=(-9, 3), background_share=0.4, background_level=(-20, -5), low_pass_share=0.2)
    positions = range(4000)
    drawn = [draw_augmentation(config, 7, position) for position in positions]
    assert drawn == [draw_augmentation(config, 7, position) for position in positions]
    assert drawn != [draw_augmentation(config, 8, position) for position in positions]
    assert all(-9 <= each.gain <= 3 and -20 <= each.background_level <= -5 for each in drawn)
    backgrounds = [(n, each.background_position) for n, each in zip(positions, drawn, strict=True)]
    distances = [position - background for position, background in backgrounds if background is not None]
    low_passes = [each.low_pass_hertz for each in drawn if each.low_pass_hertz is not None]
    assert (min(distances), max(distances)) == (1, FARTHEST_BACKGROUND)
    assert len(distances) / 4000 == pytest.approx(0.4, abs=0.03)
    assert len(low_passes) / 4000 == pytest.approx(0.2, abs=0.03)
    assert all(3000 <= low_pass <= 10_000 for low_pass in low_passes)


def test_speeds_are_within_their_range_and_change_no_other_draws() -> None:
    positions = range(2000)
    plain = [draw_augmentation(AugmentationConfig(), 7, position) for position in positions]
    assert {each.speed for each in plain} == {1.0}
    drawn = [draw_augmentation(AugmentationConfig(speed=(0.8, 1.25)), 7, position) for position in positions]
    assert [replace(each, speed=1.0) for each in drawn] == plain
    speeds = np.array([each.speed for each in drawn])
    assert 0.8 <= speeds.min() < 0.81 and 1.24 < speeds.max() <= 1.25
    assert np.median(speeds) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("speed", [0.5, 0.8, 0.9377, 1.0625, 1.25, 2.0])
def test_speed_raises_frequencies_and_keeps_levels(speed: float) -> None:
    seconds = np.arange(round(RATE * speed)) / RATE
    played = np.empty(RATE, np.float32)
    change_speed((0.5 * np.sin(2 * np.pi * 1000 * seconds)).astype(np.float32), played)
    spectrum = np.abs(np.fft.rfft(played * np.hanning(RATE)))
    assert spectrum.argmax() == pytest.approx(1000 * speed, abs=1)
    assert np.sqrt(np.square(played[50:-50]).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)
    # The ends are not those of a ring: no click where the signal jumps from its end to its beginning.
    assert np.abs(played).max() < 0.6


def test_speed_keeps_what_is_below_half_the_sample_rate() -> None:
    """Frequencies that would be beyond it are removed instead of mirrored."""
    seconds = np.arange(2 * RATE) / RATE
    played = np.empty(RATE, np.float32)
    change_speed(np.sin(2 * np.pi * 3000 * seconds).astype(np.float32), played)
    assert np.abs(played[100:-100]).max() < 0.01


@pytest.mark.parametrize(("speed", "segment_samples"), [(2.0, 900), (2.0, 300), (0.5, 600)])
def test_faster_segments_hold_more_of_their_clip(
    speed: float, segment_samples: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment at twice the speed is a crop of twice the length, from where such a crop would begin."""

    def ramp(address: SampleAddress, data: bytes, sample_rate: int, start: int, out: np.ndarray) -> None:
        assert start + len(out) <= max(len(out), address.n_samples)
        out[:] = np.arange(start, start + len(out)) / 2000

    monkeypatch.setattr(segments, "decode", ramp)
    quiet = {"gain": (0, 0), "background_share": 0, "low_pass_share": 0}
    config = data_config(shards=folder, augmentation={**quiet, "speed": (speed, speed)})
    changed = segment_reader(config, segment_samples=segment_samples)
    plain = segment_reader(data_config(shards=folder), segment_samples=round(speed * segment_samples))
    for position in range(6):
        (segment,), (crop,) = changed.read([position]), plain.read([position])
        expected = np.empty_like(segment.waveform)
        change_speed(crop.waveform, expected)
        np.testing.assert_array_equal(segment.waveform, expected)


def test_gain_scales_and_full_scale_is_kept() -> None:
    np.testing.assert_allclose(
        augmented(SegmentAugmentation(-6.0, None, 0.0, None), sine(440)), sine(440) * 10**-0.3, rtol=1e-5
    )
    assert np.abs(augmented(SegmentAugmentation(20.0, None, 0.0, None), sine(440))).max() == pytest.approx(1.0)
    np.testing.assert_array_equal(augmented(UNCHANGED, sine(440)), sine(440))


def test_background_has_its_level() -> None:
    mixed = augmented(SegmentAugmentation(0.0, 0, -10.0, None), sine(440, 0.3), sine(1000, 0.8))
    np.testing.assert_allclose(mixed - sine(440, 0.3), sine(1000, 0.3 * 10**-0.5), atol=1e-6)


def test_silence_is_neither_mixed_into_nor_mixed_in() -> None:
    silence = np.zeros(RATE, np.float32)
    mix = SegmentAugmentation(0.0, 0, 0.0, None)
    np.testing.assert_array_equal(augmented(mix, silence, sine(440)), silence)
    np.testing.assert_array_equal(augmented(mix, sine(440), silence), sine(440))


def test_low_pass_removes_what_is_above_it() -> None:
    low_passed = augmented(SegmentAugmentation(0.0, None, 0.0, 1500.0), sine(440) + sine(3000, 0.2))
    np.testing.assert_allclose(low_passed, sine(440), atol=1e-5)


def test_first_segment_has_no_background(folder: Path) -> None:
    config = data_config(shards=folder, augmentation={"background_share": 1.0, "gain": [0, 0], "low_pass_share": 0.0})
    loader = SegmentLoader(segment_reader(config), config, 0, 0, 1)
    first = next(iter(loader)).waveforms[0]
    plain = batches(data_config(shards=folder), 1)[0].waveforms[0]
    assert torch.equal(first, plain)


def test_damaged_samples_stay_silent_and_add_nothing(tmp_path: Path) -> None:
    damaged = write_shards(tmp_path / "all", [4, 4])
    damage(damaged, {"all-1", "all-6"})
    whole = {"gain": [0, 0], "low_pass_share": 0.0, "speed": [0.9, 0.9]}
    mixed = batches(data_config(shards=damaged, augmentation={**whole, "background_share": 1.0}), 4)
    plain = batches(data_config(shards=damaged, augmentation={**whole, "background_share": 0.0}), 4)
    config, keys = AugmentationConfig(background_share=1.0), [key for batch in mixed for key in batch.keys]
    segments, unmixed = (torch.cat([batch.waveforms for batch in each]) for each in (mixed, plain))
    mask = torch.cat([batch.mask for batch in mixed])
    for position, key in enumerate(keys):
        background = draw_augmentation(config, 5, position).background_position
        if key in ("all-1", "all-6"):
            assert not mask[position]
        elif background is None or keys[background] in ("all-1", "all-6"):
            assert torch.equal(segments[position], unmixed[position])


@pytest.mark.parametrize(
    "setting",
    [
        "gain=[3, -3]",
        "background_share=1.5",
        "low_pass_hertz=[0, 100]",
        "gain=[-500, 0]",
        "speed=[0, 1]",
        "speed=[1, 5]",
        "speed=[1.2, 0.8]",
    ],
)
def test_impossible_settings_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="augmentation"):
        load_train_config("nano", [f"data.augmentation.{setting}"])
