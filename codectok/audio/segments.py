"""Where to cut a recording into segments."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from codectok.errors import InputError

Segmenter = Literal["quiet", "fixed", "vad"]
Cutter = Literal["quiet", "fixed"]

ENERGY_HOP_SECONDS = 0.01
ENERGY_WINDOW_HOPS = 10  # 0.1 s: shorter dips lie inside words


def check_limits(min_seconds: float, max_seconds: float, segmenter: Segmenter) -> None:
    """Refuse limits that cannot be kept: a cut at a quiet point needs room for two segments of the minimum."""
    factor = 1 if segmenter == "fixed" else 2
    if not 0 < min_seconds * factor <= max_seconds < math.inf:
        raise InputError(
            f"Segments of {min_seconds:g} to {max_seconds:g} s are impossible: the minimum must be above 0,"
            f" the maximum at least {'twice the minimum' if factor == 2 else 'the minimum'}."
        )


def limits_in_samples(min_seconds: float, max_seconds: float, sample_rate: int) -> tuple[int, int]:
    """The least and the greatest length of a segment."""
    return round(min_seconds * sample_rate), round(max_seconds * sample_rate)


@dataclass(frozen=True)
class Segment:
    """A piece of a recording: `samples` float32 [n], the first of which is the recording's sample `start`."""

    start: int
    samples: np.ndarray

    @property
    def end(self) -> int:
        """The sample after its last."""
        return self.start + len(self.samples)


def segments_of(
    blocks: Iterable[np.ndarray], sample_rate: int, min_seconds: float, max_seconds: float, segmenter: Cutter
) -> Iterator[Segment]:
    """Cut a recording that arrives in `blocks` float32 [n], without gap; no segment is longer than the maximum.

    "quiet" cuts at the quietest tenth of a second that keeps both sides long enough; only a recording that is too
    short as a whole gives a segment under the minimum. "fixed" gives the maximum each time, and a last remainder.
    The cuts do not depend on the blocks, and little more than a segment is in memory.
    """
    check_limits(min_seconds, max_seconds, segmenter)
    shortest, longest = limits_in_samples(min_seconds, max_seconds, sample_rate)
    # To choose the next cut takes so many samples, unless the recording ends before.
    needed = longest if segmenter == "fixed" else longest + shortest
    held, start = np.zeros(0, np.float32), 0
    arrived: list[np.ndarray] = []
    n_arrived = 0

    def next_segment() -> Segment:
        nonlocal held, start
        end = longest
        if segmenter == "quiet":
            end = _quietest(held, sample_rate, shortest, min(longest, len(held) - shortest))
        segment = Segment(start, held[:end])
        held, start = held[end:], start + end
        return segment

    for block in blocks:
        arrived.append(block)
        n_arrived += len(block)
        if len(held) + n_arrived > needed:
            held = np.concatenate([held, *arrived])
            arrived, n_arrived = [], 0
            while len(held) > needed:
                yield next_segment()
    held = np.concatenate([held, *arrived])
    while len(held) > longest:
        yield next_segment()
    if len(held):
        yield Segment(start, held)


def _quietest(samples: np.ndarray, sample_rate: int, first: int, last: int) -> int:
    """Middle of the window with the least energy between `first` and `last`; the latest of equals."""
    hop = max(1, round(ENERGY_HOP_SECONDS * sample_rate))
    hops = (last - first) // hop
    if hops < ENERGY_WINDOW_HOPS:
        return last
    parts = samples[first : first + hops * hop].reshape(hops, hop)
    energy = np.einsum("ij,ij->i", parts, parts).astype(np.float64)
    windows = np.convolve(energy, np.ones(ENERGY_WINDOW_HOPS), mode="valid")
    best = len(windows) - 1 - int(windows[::-1].argmin())
    return first + best * hop + ENERGY_WINDOW_HOPS * hop // 2
