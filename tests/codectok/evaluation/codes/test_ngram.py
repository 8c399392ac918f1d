"""Bits a token of an n-gram model."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict

import numpy as np
import pytest

from codectok.evaluation.codes.ngram import ngram_bits

HALVES = np.array([0, 1])


def _probability(training: list[list[int]], context: list[int], token: int, vocabulary: int) -> float:
    """The formula of Witten and Bell, word for word."""
    followers: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for sequence in training:
        for place, following in enumerate(sequence):
            for length in range(min(place, 2) + 1):
                followers[tuple(sequence[place - length : place])][following] += 1
    estimate = 1 / vocabulary
    for length in range(len(context) + 1):
        found = followers[tuple(context[len(context) - length :])]
        if found:
            estimate = (found[token] + len(found) * estimate) / (found.total() + len(found))
    return estimate


def test_bits_of_two_short_sequences_by_hand() -> None:
    # Trained on 0 0 1: p(0) = (2 + 2 / 4) / 5 = 0.5, p(0 | 0) = (1 + 2 * 0.5) / 4 = 0.5.
    # Trained on 0 0: p(0) = (2 + 1 / 4) / 3 = 0.75, p(0 | 0) = (1 + 0.75) / 2 = 0.875,
    # p(1) = (1 / 4) / 3 = 1 / 12, p(1 | 0) = (1 / 12) / 2 = 1 / 24, and no model knows the context 0 0.
    orders = [[1 / 4] * 5, [0.75, 0.75, 1 / 12, 0.5, 0.5], [0.75, 0.875, 1 / 24, 0.5, 0.5]]
    bits = [-sum(map(math.log2, probabilities)) / 5 for probabilities in orders]
    for order in (0, 1, 2, 3):
        found = ngram_bits([np.array([0, 0, 1]), np.array([0, 0])], 4, HALVES, order, min_tokens=1)
        assert found == pytest.approx(min(bits[: order + 1]), rel=1e-12)


def test_bits_are_the_least_of_all_orders() -> None:
    rng = np.random.default_rng(0)
    sequences = [np.cumsum(rng.integers(0, 2, length) + 1) % 5 for length in (90, 1, 45, 2, 80, 0)]
    folds = np.array([0, 1, 1, 0, 1, 0])
    bits = [math.log2(6)]
    for order in (1, 2, 3):
        logs = []
        for sequence, fold in zip(sequences, folds, strict=True):
            training = [other.tolist() for other, of in zip(sequences, folds, strict=True) if of != fold]
            for place, token in enumerate(sequence.tolist()):
                context = sequence[max(0, place - order + 1) : place].tolist()
                logs.append(math.log2(_probability(training, context, token, 6)))
        bits.append(-float(np.mean(logs)))
    for order in (1, 2, 3):
        found = ngram_bits(sequences, 6, folds, order, min_tokens=1)
        assert found == pytest.approx(min(bits[: order + 1]), rel=1e-12)


@pytest.mark.parametrize("codebook_size", [16, 64, 4096])
def test_uniform_codes_cost_their_entropy(codebook_size: int) -> None:
    codes = np.random.default_rng(1).integers(0, codebook_size, (2, 100_000))
    bits = ngram_bits(list(codes), codebook_size, HALVES)
    assert bits is not None
    assert math.log2(codebook_size) - 0.02 < bits <= math.log2(codebook_size)


def test_a_clip_is_not_scored_by_itself() -> None:
    codes = np.random.default_rng(2).integers(0, 4096, (2, 3000))
    apart = ngram_bits(list(codes), 4096, HALVES)
    known = ngram_bits([codes[0], codes[0]], 4096, HALVES)
    assert apart is not None
    assert known is not None
    assert apart > 11.9
    assert known < 4


def test_a_cycle_costs_next_to_nothing() -> None:
    cycle = np.arange(20_000) % 50
    bits = ngram_bits([cycle, cycle], 50, HALVES)
    assert bits is not None
    assert 0 < bits < 0.05


def test_a_markov_chain_costs_its_entropy_rate() -> None:
    rng = np.random.default_rng(3)
    table = rng.dirichlet(np.full(8, 0.3), 8)
    drawn = rng.random(200_000)
    cumulated, states = table.cumsum(1), [0]
    for value in drawn:
        states.append(min(7, int(np.searchsorted(cumulated[states[-1]], value))))
    codes = np.array(states)
    shares = np.bincount(codes, minlength=8) / len(codes)
    rate = -(shares[:, None] * table * np.log2(np.maximum(table, 1e-300))).sum()
    bits = ngram_bits([codes[:100_000], codes[100_000:]], 8, HALVES)
    assert bits == pytest.approx(rate, abs=0.02)


def test_codebooks_become_tokens_with_offsets() -> None:
    codes = np.random.default_rng(4).integers(0, 8, (2, 700, 3))
    flat = codes + np.array([0, 8, 16])
    bits = ngram_bits(list(codes), 24, HALVES)
    assert bits == ngram_bits([clip.reshape(-1) for clip in flat], 24, HALVES)
    assert bits != ngram_bits([clip.reshape(-1) for clip in codes], 24, HALVES)


def test_few_tokens_have_no_bits() -> None:
    long, short = np.zeros(5000, np.int64), np.zeros(999, np.int64)
    assert ngram_bits([long, short], 2, HALVES) is None
    assert ngram_bits([long, long], 2, np.array([0, 0])) is None
    assert ngram_bits([], 2, np.zeros(0)) is None


@pytest.mark.parametrize(
    ("codes", "folds"),
    [(np.full(9, 4), [0]), (np.full((9, 2), 2), [0]), (np.full(9, -1), [1]), (np.zeros(9), [2]), (np.zeros(9), [0, 1])],
)
def test_impossible_codes_and_folds_are_refused(codes: np.ndarray, folds: list[int]) -> None:
    with pytest.raises(ValueError, match=r"codes|folds"):
        ngram_bits([codes], 4, np.array(folds))


@pytest.mark.slow
def test_ten_million_tokens_take_a_minute() -> None:
    rng = np.random.default_rng(5)
    codes = (rng.standard_normal((2, 5_000_000)) * 5000).astype(np.int64) % 32_768
    started = time.monotonic()
    bits = ngram_bits(list(codes), 32_768, HALVES)
    assert bits is not None
    assert 12 < bits < 15.1
    assert time.monotonic() - started < 120
