"""Sets of intervals of time, in seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """The time from `start` to `end`."""

    start: float
    end: float


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """Return the same time as intervals that are apart, in order."""
    found: list[Interval] = []
    for start, end in sorted(one for one in intervals if one.end > one.start):
        if found and start <= found[-1].end:
            found[-1] = Interval(found[-1].start, max(found[-1].end, end))
        else:
            found.append(Interval(start, end))
    return found


def within(intervals: Iterable[Interval], start: float, end: float) -> list[Interval]:
    """Return the time of `intervals` that lies between `start` and `end`, as intervals that are apart."""
    return union(Interval(max(start, one.start), min(end, one.end)) for one in intervals)


def seconds_of(intervals: Iterable[Interval]) -> float:
    """Return the duration of intervals that are apart."""
    return sum(end - start for start, end in intervals)


def seconds_without(intervals: Sequence[Interval], others: Sequence[Interval]) -> float:
    """Return the duration of `intervals` that none of `others` covers; the intervals of each are apart and in order."""
    common, place = 0.0, 0
    for start, end in intervals:
        while place < len(others) and others[place].end <= start:
            place += 1
        at = place
        while at < len(others) and others[at].start < end:
            common += min(end, others[at].end) - max(start, others[at].start)
            at += 1
    return seconds_of(intervals) - common
