"""Reading spans in one pass with little memory, and joining them without losing text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import numpy as np
import pytest

from codectok.audio.spans import Recording, Span, join_short

BLOCK = 1000
Spans = list[tuple[int, int | None]]


def blocks_of(samples: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(samples), BLOCK):
        yield samples[start : start + BLOCK]


def test_recording_returns_samples_of_each_span() -> None:
    generator = np.random.default_rng(0)
    samples = np.arange(20_000, dtype=np.float32)
    for _ in range(200):
        firsts = np.sort(generator.integers(0, 22_000, 6))
        ranges: Spans = [
            (int(first), None if length > 9000 else int(first + length))
            for first, length in zip(firsts, generator.integers(1, 10_000, 6), strict=True)
        ]
        recording = Recording(blocks_of(samples), ranges)
        for first, end in ranges:
            taken = np.concatenate([np.zeros(0, np.float32), *recording.take()])
            np.testing.assert_array_equal(taken, samples[first:end])


@pytest.mark.parametrize("first_end", [None, 900_000])
def test_recording_holds_only_blocks_of_later_spans(first_end: int | None) -> None:
    ranges: Spans = [(0, first_end), (5000, 800_000), (5500, 6000), (500_000, 510_000)]
    recording = Recording(blocks_of(np.zeros(1_000_000, np.float32)), ranges)
    held = []
    for _ in ranges:
        for _ in recording.take():
            pass
        held.append(sum(len(block) for _, block in recording._held))
    assert held == [795_000, 11_000, 10_000, 0]


def test_overlapping_spans_take_linear_work() -> None:
    def lines(n_samples: int) -> int:
        """Count the lines that Python executes, one for each round of a loop."""
        recording = Recording(blocks_of(np.zeros(n_samples, np.float32)), [(0, None), (10, None)])
        executed = 0

        def count(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal executed
            executed += event == "line"
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            for _ in range(2):
                for _ in recording.take():
                    pass
        finally:
            sys.settrace(before)
        return executed

    assert lines(1_000_000) < lines(16_000_000) < 17 * lines(1_000_000)


def test_joined_pieces_of_span_keep_id_once() -> None:
    pieces = [Span(0, 1, "u1"), Span(1.2, 2, "u1"), Span(2.5, 3, "u2"), Span(3.1, 3.5, "u2")]
    (joined,) = join_short(pieces, 4.0, 10.0)
    assert (joined.id, joined.start, joined.end) == ("u1 u2", 0, 3.5)


def test_joined_spans_keep_repeated_text() -> None:
    (joined,) = join_short([Span(0, 1, text="no"), Span(1, 2, text="no")], 2.0, 10.0)
    assert joined.text == "no no"
