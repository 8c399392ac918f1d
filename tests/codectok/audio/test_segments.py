from __future__ import annotations

import itertools

import numpy as np
import pytest

from codectok import InputError
from codectok.audio.segments import segments_of
from codectok.choices import Segmenter
from tests.helpers.audio import tone

RATE = 8000


def cut(samples: np.ndarray, low: float, high: float, segmenter: Segmenter) -> list[tuple[int, int]]:
    return [(s.start, s.end) for s in segments_of([samples], RATE, low, high, segmenter)]


@pytest.mark.parametrize("segmenter", ["quiet", "fixed"])
@pytest.mark.parametrize("seconds", [0.1, 2, 9.99, 10, 10.0001, 12, 19.9, 20, 20.1, 61.7])
def test_segments_cover_recording_within_limits(segmenter: Segmenter, seconds: float) -> None:
    samples = tone(seconds, RATE)
    segments = cut(samples, 2, 10, segmenter)
    assert segments[0][0] == 0
    assert segments[-1][1] == len(samples)
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(segments))
    lengths = [end - start for start, end in segments]
    assert max(lengths) <= 10 * RATE
    checked = lengths if segmenter == "quiet" and seconds >= 2 else lengths[:-1]
    assert all(length >= 2 * RATE for length in checked)


@pytest.mark.parametrize("segmenter", ["quiet", "fixed"])
@pytest.mark.parametrize("seed", range(5))
def test_cuts_do_not_depend_on_blocks(segmenter: Segmenter, seed: int) -> None:
    samples = tone(63.3, RATE, seed=seed)
    borders = np.sort(np.random.default_rng(seed).integers(0, len(samples), 40))
    blocks = np.split(samples, borders)
    found = list(segments_of(blocks, RATE, 2, 10, segmenter))
    assert [(s.start, s.end) for s in found] == cut(samples, 2, 10, segmenter)
    np.testing.assert_array_equal(np.concatenate([s.samples for s in found]), samples)


def test_quiet_cuts_are_in_pauses() -> None:
    samples = tone(30, RATE)
    for start, end in ((6.5, 6.8), (14.1, 14.4), (21.6, 21.9)):
        samples[round(start * RATE) : round(end * RATE)] = 0
    borders = [start / RATE for start, _ in cut(samples, 2, 10, "quiet")][1:]
    assert borders == pytest.approx([6.65, 14.25, 21.75], abs=0.11)


def test_fixed_segments_have_maximum_length() -> None:
    assert [end - start for start, end in cut(np.zeros(25 * RATE, np.float32), 2, 10, "fixed")] == [
        10 * RATE,
        10 * RATE,
        5 * RATE,
    ]


@pytest.mark.parametrize(("low", "high"), [(2, 3.9), (0, 10), (-1, 5), (2, float("nan")), (2, float("inf"))])
def test_impossible_limits_are_rejected(low: float, high: float) -> None:
    with pytest.raises(InputError, match="at least twice"):
        cut(tone(1, RATE), low, high, "quiet")


def test_fixed_segments_allow_equal_limits() -> None:
    assert len(cut(np.zeros(9 * RATE, np.float32), 3, 3, "fixed")) == 3
