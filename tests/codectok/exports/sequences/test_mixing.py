"""Mixing sources by shares of tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from codectok.exports.choices import Until
from codectok.exports.sequences.documents import Document
from codectok.exports.sequences.mixing import Stream, mix


def stream(name: str, *lengths: int) -> Stream:
    def begin(again: bool) -> Iterator[Document]:
        for n, length in enumerate(lengths):
            yield Document(np.zeros(length, np.int32), f"{name}{n}{'+' * again}", name)

    return begin


def test_mixing_without_weights_concatenates() -> None:
    streams = {"a": stream("a", 5, 5), "b": stream("b", 1)}
    assert [document.id for document in mix(streams, None, Until.FIRST)] == ["a0", "a1", "b0"]


def test_token_shares_follow_weights() -> None:
    generator = np.random.default_rng(0)
    lengths = {"long": generator.integers(500, 900, 500), "short": generator.integers(1, 30, 60_000)}
    streams = {name: stream(name, *values.tolist()) for name, values in lengths.items()}
    weights = {"long": 3.0, "short": 1.0}
    tokens: Counter[str] = Counter()
    for n, document in enumerate(mix(streams, weights, Until.FIRST)):
        tokens[document.dataset] += len(document.ids)
        if n > 1000:
            assert abs(tokens["long"] / tokens.total() - 0.75) < 900 / tokens.total()
    assert tokens["long"] == lengths["long"].sum()


def test_mixture_ends_with_first_or_last_source() -> None:
    streams = {"a": stream("a", 1, 1, 1, 1), "b": stream("b", 1, 1)}
    weights = {"a": 1.0, "b": 1.0}
    assert [d.id for d in mix(streams, weights, Until.FIRST)] == ["a0", "b0", "a1", "b1", "a2"]
    assert [d.id for d in mix(streams, weights, Until.LAST)] == ["a0", "b0", "a1", "b1", "a2", "b0+", "a3", "b1+"]


def test_empty_source_ends_mixture_until_first_only() -> None:
    streams = {"a": stream("a", 1, 1), "b": stream("b")}
    weights = {"a": 1.0, "b": 1.0}
    assert [d.id for d in mix(streams, weights, Until.LAST)] == ["a0", "a1"]
    assert [d.id for d in mix(streams, weights, Until.FIRST)] == ["a0"]
    assert list(mix({"b": stream("b")}, {"b": 1.0}, Until.LAST)) == []
