"""Metrics that cannot tell silence or noise from the original are flagged."""

from __future__ import annotations

import numpy as np

from codectok.evaluation.discrimination import Discrimination, discrimination
from codectok.evaluation.metrics.base import Quantity

QUANTITIES = (
    Quantity("similarity", "higher", ""),
    Quantity("distance", "lower", ""),
    Quantity("loudness", "neither", ""),
    Quantity("rating", "higher", ""),
)


def test_floors_are_told_apart_in_the_better_direction() -> None:
    rng = np.random.default_rng(0)
    n_clips = 60
    groups = np.arange(n_clips) // 2
    original = np.stack(
        [np.ones(n_clips), np.zeros(n_clips), rng.normal(size=n_clips), 4 + rng.normal(0, 0.5, n_clips)], 1
    )
    noise = np.stack([rng.random(n_clips), rng.random(n_clips), np.zeros(n_clips), original[:, 3] + 0.5], 1)
    silence = noise.copy()
    silence[:, 0] = np.nan
    silence[:, 3] = original[:, 3] + rng.normal(0, 1, n_clips)
    found = discrimination(QUANTITIES, original, {"silence": silence, "noise": noise}, groups)
    assert found == {
        "similarity": Discrimination(("noise",), (), ("silence",)),
        "distance": Discrimination(("silence", "noise"), (), ()),
        "rating": Discrimination((), ("silence", "noise"), ()),
    }
    assert [name for name, of in found.items() if of.not_told_apart] == ["rating"]


def test_one_recording_says_nothing() -> None:
    values = np.ones((5, 4))
    found = discrimination(QUANTITIES, values, {"noise": values - 1}, np.zeros(5, np.int64))
    assert found["similarity"] == Discrimination((), (), ("noise",))


def test_equal_values_are_not_told_apart() -> None:
    values = np.ones((5, 4))
    found = discrimination(QUANTITIES, values, {"noise": values}, np.arange(5))
    assert all(of.not_told_apart == ("noise",) for of in found.values())
