"""The order of samples is a pure function of seed, epoch and position; mixtures are exact."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from codectok.train.data.mixture import Mixture, shares_of_replays, shares_of_weights
from codectok.train.data.order import ShardOrder

SIZES = [5, 1, 8, 3, 0, 9, 2, 7, 4, 6]
TOTAL = sum(SIZES)


def order(seed: int = 0, window: int = 3) -> ShardOrder:
    return ShardOrder(SIZES, window, (seed,))


@pytest.mark.parametrize("window", [1, 3, 100])
def test_every_sample_comes_once_per_epoch(window: int) -> None:
    every = sorted((shard, row) for shard, size in enumerate(SIZES) for row in range(size))
    stream = order(window=window)
    epochs = [[stream.locate(epoch * TOTAL + place) for place in range(TOTAL)] for epoch in range(3)]
    assert all(sorted(epoch) == every for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_positions_can_be_located_in_any_sequence() -> None:
    in_turn = [order().locate(position) for position in range(3 * TOTAL)]
    stream = order()
    for position in np.random.default_rng(0).permutation(3 * TOTAL).tolist():
        assert stream.locate(position) == in_turn[position]


def test_samples_are_mixed_within_a_window_of_shards() -> None:
    stream = ShardOrder([50] * 12, 3, (7,))
    shards = [stream.locate(position)[0] for position in range(600)]
    windows = [shards[first : first + 150] for first in range(0, 600, 150)]
    assert [Counter(window).most_common()[0][1] for window in windows] == [50] * 4
    assert all(len(set(window)) == 3 for window in windows)
    assert all(len(set(window[:20])) == 3 for window in windows)
    assert shards != sorted(shards)


def test_order_depends_on_seed() -> None:
    orders = {tuple(order(seed).locate(position) for position in range(TOTAL)) for seed in range(20)}
    assert len(orders) == 20


@pytest.mark.parametrize("shares", [[1], [1, 1], [5, 3, 2], [1000, 600, 10], [1, 0, 3], [7, 1, 1, 1, 90]])
def test_mixture_proportions_are_exact_and_even(shares: list[int]) -> None:
    mixture = Mixture(shares)
    period = sum(shares)
    dealt = [mixture.locate(position) for position in range(3 * period)]
    for source, share in enumerate(shares):
        assert [before for number, before in dealt if number == source] == list(range(3 * share))
        is_source = np.array([number == source for number, _ in dealt])
        counts = np.concatenate([[0], np.cumsum(is_source)])
        assert set(counts[period:] - counts[:-period]) == {share}
        assert np.abs(counts - np.arange(len(counts)) * share / period).max() < len(shares)


def test_distant_position_is_located_directly() -> None:
    mixture = Mixture([10**9, 6 * 10**8, 10**7])
    source, before = mixture.locate(10**15)
    assert source in (0, 1, 2)
    assert abs(before - 10**15 * mixture.shares[source] / mixture.period) < 3


def test_weights_and_rates_become_integers() -> None:
    assert shares_of_weights([0.5, 0.3, 0.2]) == [5, 3, 2]
    assert shares_of_weights([1, 0.6, 0.01]) == [100, 60, 1]
    assert shares_of_weights([3, 1e-05]) == [300_000, 1]
    assert shares_of_replays([1000, 500, 20, 7], [1.0, 0.6, 0.01, 2.0]) == [1000, 300, 1, 14]
