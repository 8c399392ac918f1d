"""Cutting recordings into segments."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from codectok.choices import Segmenter
from codectok.errors import InputError

Cutter = Literal["quiet", "fixed"]

ENERGY_HOP_SECONDS = 0.01
ENERGY_WINDOW_HOPS = 10  # 0.1 s: shorter dips are inside words


def check_limits(min_seconds: float, max_seconds: float, segmenter: Segmenter) -> None:
    """Raise `InputError` for limits that cannot be kept.

    A cut at a quiet point needs room for two segments of the minimum length.
    """
    factor = 1 if segmenter == "fixed" else 2
    if not 0 < min_seconds * factor <= max_seconds < math.inf:
        raise InputError(
            f"Segments of {min_seconds:g} to {max_seconds:g} s are impossible: the minimum must be above 0,"
            f" the maximum at least {'twice the minimum' if factor == 2 else 'the minimum'}."
        )


def limits_in_samples(min_seconds: float, max_seconds: float, sample_rate: int) -> tuple[int, int]:
    """Return the minimum and maximum length of a segment in samples."""
    return round(min_seconds * sample_rate), round(max_seconds * sample_rate)


@dataclass(frozen=True)
class Segment:
    """A segment of a recording: `samples` float32 [n] from sample `start` of the recording on."""

    start: int
    samples: np.ndarray

    @property
    def end(self) -> int:
        """Index of the sample after the last one."""
        return self.start + len(self.samples)


def segments_of(
    blocks: Iterable[np.ndarray], sample_rate: int, min_seconds: float, max_seconds: float, segmenter: Cutter
) -> Iterator[Segment]:
    """Cut a recording that arrives in `blocks` float32 [n] into segments without gaps.

    No segment is longer than the maximum. "quiet" cuts at the quietest 0.1 s that leaves both sides long enough; only
    a recording shorter than the minimum becomes a segment under it. "fixed" cuts segments of the maximum length and a
    remainder. The cuts do not depend on the sizes of the blocks. Memory holds little more than one segment.

    Raises:
        InputError: the limits cannot be kept.
    """
    check_limits(min_seconds, max_seconds, segmenter)
    shortest, longest = limits_in_samples(min_seconds, max_seconds, sample_rate)
    # Samples that the choice of the next cut needs, unless the recording ends first.
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
    """Return the middle of the window with the least energy between `first` and `last`; the last one of equals."""
    hop = max(1, round(ENERGY_HOP_SECONDS * sample_rate))
    hops = (last - first) // hop
    if hops < ENERGY_WINDOW_HOPS:
        return last
    parts = samples[first : first + hops * hop].reshape(hops, hop)
    energy = np.einsum("ij,ij->i", parts, parts).astype(np.float64)
    windows = np.convolve(energy, np.ones(ENERGY_WINDOW_HOPS), mode="valid")
    best = len(windows) - 1 - int(windows[::-1].argmin())
    return first + best * hop + ENERGY_WINDOW_HOPS * hop // 2
