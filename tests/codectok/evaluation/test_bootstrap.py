"""Confidence intervals by bootstrap over recordings."""

from __future__ import annotations

import time

import numpy as np
import pytest

from codectok.evaluation.bootstrap import intervals, resampled_weights


def _groups(n_groups: int, clips_of_group: int) -> np.ndarray:
    return np.repeat(np.arange(n_groups), clips_of_group)


def test_intervals_cover_the_true_mean_of_clustered_clips() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(100):
        recordings = rng.normal(3.0, 1.0, (50, 1, 2))
        values = (recordings + rng.normal(0, 0.5, (50, 4, 2))).reshape(200, 2)
        found = intervals(values, _groups(50, 4), seed=seed, resamples=400)
        covered += list((found.low < 3.0) & (found.high > 3.0))
    assert 0.90 <= np.mean(covered) <= 0.99


def test_intervals_equal_a_loop_over_drawn_clips() -> None:
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 7, 40)
    values = rng.normal(size=(40, 2))
    values[rng.random((40, 2)) < 0.2] = np.nan
    found = intervals(values, groups, seed=5, resamples=60, confidence=0.8)
    (weights,) = resampled_weights(7, 5, 60)
    assert (weights.sum(1) == 7).all()
    means = []
    for row in weights:
        clips = [
            clip for group, times in enumerate(row) for clip in np.flatnonzero(groups == group).tolist() * int(times)
        ]
        means.append(np.nanmean(values[clips], 0))
    np.testing.assert_allclose(found.mean, np.nanmean(values, 0))
    np.testing.assert_allclose([found.low, found.high], np.quantile(means, [0.1, 0.9], axis=0))
    assert found.count.tolist() == (~np.isnan(values)).sum(0).tolist()


def test_clips_of_one_recording_widen_the_interval() -> None:
    values = np.random.default_rng(2).normal(size=(60, 1)).repeat(5, 0)
    together, apart = (intervals(values, groups) for groups in (_groups(60, 5), np.arange(300)))
    assert together.mean == pytest.approx(apart.mean)
    ratio = (together.high - together.low) / (apart.high - apart.low)
    assert 1.8 < float(ratio[0]) < 2.7  # the square root of 5


def test_order_of_rows_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    values, groups = rng.normal(size=(500, 3)), rng.integers(0, 50, 500)
    values[::7, 1] = np.nan
    order = rng.permutation(500)
    one, other = intervals(values, groups), intervals(values[order], groups[order])
    again = intervals(values, groups, seed=1)
    for name in ("mean", "low", "high", "count"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert not np.array_equal(one.low, again.low)
    monkeypatch.setattr("codectok.evaluation.bootstrap.BLOCK_WEIGHTS", 50 * 7)
    np.testing.assert_allclose(intervals(values, groups).low, one.low, rtol=1e-12)


def test_interval_is_undefined_for_one_recording() -> None:
    values = np.array([[1.0, 2.0, np.nan], [2.0, 4.0, np.nan], [np.nan, 9.0, np.nan]])
    found = intervals(values, np.array([8, 8, 9]))
    np.testing.assert_array_equal(found.mean, [1.5, 5.0, np.nan])
    np.testing.assert_array_equal(np.isnan(found.low), [True, False, True])
    np.testing.assert_array_equal(np.isnan(found.high), [True, False, True])
    assert found.count.tolist() == [2, 3, 0]


@pytest.mark.parametrize("n_clips", [0, 1])
def test_few_clips_have_no_interval(n_clips: int) -> None:
    found = intervals(np.ones((n_clips, 2)), np.zeros(n_clips, np.int64))
    assert np.isnan(found.low).all()
    assert found.count.tolist() == [n_clips] * 2


def test_rare_quantity_has_finite_ends() -> None:
    values = np.full((30, 1), np.nan)
    values[:2] = [[1.0], [3.0]]  # a third of the resamples holds neither
    found = intervals(values, np.arange(30))
    assert [float(values[0]) for values in (found.low, found.mean, found.high)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(("values", "groups"), [(np.ones((3, 1)), np.zeros(2)), (np.full((2, 1), np.inf), np.zeros(2))])
def test_impossible_values_are_refused(values: np.ndarray, groups: np.ndarray) -> None:
    with pytest.raises(ValueError, match="values"):
        intervals(values, groups)


@pytest.mark.slow
def test_large_sets_take_seconds() -> None:
    values = np.random.default_rng(0).normal(size=(100_000, 50))
    started = time.monotonic()
    intervals(values, np.arange(100_000))
    assert time.monotonic() - started < 30
