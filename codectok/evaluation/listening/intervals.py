"""Bootstrap intervals of mean ratings, over listeners and clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
SHARE = 0.95


@dataclass(frozen=True)
class MeanRating:
    """A mean with its interval.

    Attributes:
        mean: of all ratings.
        low, high: ends of the 95 % interval; None for a single listener and a single clip.
        ratings: number of ratings.
    """

    mean: float
    low: float | None
    high: float | None
    ratings: int


def mean_rating(values: Sequence[tuple[str, str, float]], seed: int) -> MeanRating:
    """Compute the mean of (listener, clip, value) and its bootstrap interval.

    Each draw resamples listeners and clips, since ratings of one listener, and of one clip, are alike.
    """
    listeners, rows = np.unique([listener for listener, _, _ in values], return_inverse=True)
    clips, columns = np.unique([clip for _, clip, _ in values], return_inverse=True)
    numbers = np.array([value for _, _, value in values], np.float64)
    mean = float(numbers.mean())
    if len(listeners) == len(clips) == 1:
        return MeanRating(mean, None, None, len(values))
    generator = np.random.default_rng(seed)
    of_listeners = _draws(generator, len(listeners))
    of_clips = _draws(generator, len(clips))
    weights = of_listeners[:, rows] * of_clips[:, columns]
    total = weights.sum(axis=1)
    drawn = total > 0  # a draw may hold no rating if listeners have not rated all clips
    means = (weights[drawn] @ numbers) / total[drawn]
    low, high = np.quantile(means, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return MeanRating(mean, float(low), float(high), len(values))


def _draws(generator: np.random.Generator, n: int) -> np.ndarray:
    """How often each of `n` is drawn, [DRAWS, n]."""
    counts: np.ndarray = generator.multinomial(n, np.full(n, 1 / n), DRAWS).astype(np.float64)
    return counts
