"""Confidence intervals of means over clips, by bootstrap over recordings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Weights that are held at once, 8 bytes each.
BLOCK_WEIGHTS = 1 << 22


@dataclass(frozen=True)
class Intervals:
    """Means and their confidence intervals, float64 [n_quantities] each.

    Attributes:
        mean: over the clips where a quantity is defined; NaN if there are none.
        low, high: ends of the interval; NaN if fewer than two recordings define the quantity.
        count: int64, number of clips where a quantity is defined.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray


def intervals(
    values: np.ndarray, groups: np.ndarray, seed: int = 0, resamples: int = 1000, confidence: float = 0.95
) -> Intervals:
    """Compute percentile bootstrap intervals of the means of many quantities.

    Recordings are drawn with replacement, and all clips of a recording together, because clips of one recording
    resemble each other. The mean of a resample is the sum over its clips divided by their number. All quantities share
    the resamples. For a paired difference, pass the differences as a quantity.

    The result depends on the seed, the values, and the order of the ids of recordings, and not on the order of rows.
    With fewer than about 20 recordings, percentile intervals are somewhat too narrow.

    Args:
        values: float64 [n_clips, n_quantities], finite or NaN where a quantity is undefined.
        groups: int [n_clips], the id of the recording of each clip.
        seed: of the draws.
        resamples: number of resamples.
        confidence: share of the resampled means inside of the interval.
    """
    values, groups = np.asarray(values, np.float64), np.asarray(groups)
    if values.ndim != 2 or groups.shape != values.shape[:1]:
        raise ValueError(f"values {values.shape} and groups {groups.shape} do not fit together")
    if np.isinf(values).any():
        raise ValueError("values must be finite or NaN")
    sums, counts = _sums_of_groups(values, groups)
    count = counts.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, sums.sum(0) / count, np.nan)
    low, high = np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    known = (counts > 0).sum(0) > 1
    if known.any():
        means = _resampled_means(sums[:, known], counts[:, known], seed, resamples)
        tail = (1 - confidence) / 2
        low[known], high[known] = np.nanquantile(means, [tail, 1 - tail], axis=0)
    return Intervals(mean, low, high, count)


def resampled_weights(n_groups: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Return how often each group is drawn in each resample, in blocks float64 [rows, n_groups]."""
    generator = np.random.default_rng(seed)
    rows_of_block = max(1, BLOCK_WEIGHTS // n_groups)
    for start in range(0, resamples, rows_of_block):
        rows = min(rows_of_block, resamples - start)
        drawn = generator.integers(0, n_groups, (rows, n_groups))
        drawn += n_groups * np.arange(rows)[:, np.newaxis]
        yield np.bincount(drawn.reshape(-1), minlength=rows * n_groups).reshape(rows, n_groups).astype(np.float64)


def _sums_of_groups(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum and the number of defined values [n_groups, n_quantities], groups in the order of their ids."""
    ids, numbers = np.unique(groups, return_inverse=True)
    sums, counts = np.zeros((len(ids), values.shape[1])), np.zeros((len(ids), values.shape[1]), np.int64)
    for column, (of_sums, of_counts) in enumerate(zip(sums.T, counts.T, strict=True)):
        defined = ~np.isnan(values[:, column])
        found, of = values[defined, column], numbers[defined]
        # Sums of floats depend on their order.
        order = np.lexsort((found, of))
        of_sums += np.bincount(of[order], found[order], len(ids))
        of_counts += np.bincount(of, minlength=len(ids))
    return sums, counts


def _resampled_means(sums: np.ndarray, counts: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Return the means [resamples, n_quantities]; NaN if a resample holds no clip that defines a quantity."""
    means = []
    for weights in resampled_weights(len(sums), seed, resamples):
        drawn = weights @ counts
        with np.errstate(invalid="ignore", divide="ignore"):
            means.append(np.where(drawn > 0, (weights @ sums) / drawn, np.nan))
    return np.concatenate(means)
