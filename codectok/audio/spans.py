"""Spans of a recording: which of them belong together, and reading them in one pass over the file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from codectok.errors import AudioError

# Short neighbours are joined over a pause of at most so many seconds, which then is part of the segment.
MAX_PAUSE_SECONDS = 1.0
# A manifest may round the end of a file so far up.
END_TOLERANCE_SECONDS = 0.1


@dataclass(frozen=True)
class Labels:
    """What is known of a span beside its audio and text; spans are joined only where all of it is the same."""

    language: str | None = None
    speaker: str | None = None
    category: str | None = None


@dataclass(frozen=True)
class Span:
    """From `start` to `end` in seconds (None: to the end of the recording), and what is known of it.

    `parts` are spans inside it, in order, that say when which of its words are spoken. `key` tells its segments
    from those of all other spans of the dataset. `joined` are those that this one was made of.
    """

    start: float = 0.0
    end: float | None = None
    id: str | None = None
    text: str | None = None
    labels: Labels = Labels()
    parts: tuple[Span, ...] = ()
    key: str = ""
    joined: tuple[Span, ...] = ()

    def sample_range(self, sample_rate: int) -> tuple[int, int | None]:
        """Its first sample, and the one after its last; there is always one at least."""
        first = round(self.start * sample_rate)
        return first, None if self.end is None else max(first + 1, round(self.end * sample_rate))

    def is_within(self, n_samples: int, sample_rate: int) -> bool:
        """Whether a recording of `n_samples` has all of it, but for what was rounded."""
        first, end = self.sample_range(sample_rate)
        return n_samples > first and (end is None or n_samples >= end - round(END_TOLERANCE_SECONDS * sample_rate))

    def missing_end(self, n_samples: int, sample_rate: int, where: str) -> AudioError | None:
        """What to say if a recording that turned out to have `n_samples` ends before this does."""
        if self.is_within(n_samples, sample_rate):
            return None
        asked = f"from {self.start:g} s on" if self.end is None else f"from {self.start:g} to {self.end:g} s"
        return AudioError(f"{where} ends at {n_samples / sample_rate:.2f} s, but is wanted {asked}.", "unreadable")


def cut_between_parts(spans: Iterable[Span], max_seconds: float) -> list[Span]:
    """Cut spans with text that are too long in the middle of the pauses between their parts, where there are any.

    Neighbouring parts stay together up to the maximum, their texts joined, and no time is left out.
    """
    return [
        piece
        for span in spans
        for piece in (
            _between_parts(span, max_seconds)
            if span.text is not None and span.parts and _duration(span) > max_seconds
            else [span]
        )
    ]


def _between_parts(span: Span, max_seconds: float) -> list[Span]:
    pieces: list[Span] = []
    start = span.start
    held: list[Span] = []
    for part, following in zip(span.parts, [*span.parts[1:], None], strict=True):
        held.append(part)
        spoken_until = max(_end(one) for one in held)
        if following is not None and following.start < spoken_until:
            continue  # where speakers overlap there is no pause to cut in
        end = span.end if following is None else (spoken_until + following.start) / 2
        piece = _of_parts(held, start, end, span)
        if pieces and end is not None and end - pieces[-1].start <= max_seconds:
            pieces[-1] = _of_parts([*pieces[-1].parts, *held], pieces[-1].start, end, span)
        else:
            pieces.append(piece)
        start, held = _end(piece), []
    return [replace(piece, parts=()) for piece in pieces]


def _of_parts(parts: Sequence[Span], start: float, end: float | None, whole: Span) -> Span:
    labels = {part.labels for part in parts}
    return Span(
        start=start,
        end=end,
        id=whole.id,
        text=" ".join(part.text for part in parts if part.text) or None,
        labels=labels.pop() if len(labels) == 1 else whole.labels,
        parts=tuple(parts),
        key=whole.key,
    )


def _end(span: Span) -> float:
    return float("inf") if span.end is None else span.end


def join_short(spans: Sequence[Span], min_seconds: float, max_seconds: float) -> list[Span]:
    """Join spans (in the order of their starts) under the minimum with neighbours; texts and ids are joined.

    A short one takes in those after it; where none fits, it goes to the one before it.
    """
    groups: list[list[Span]] = []
    for span in spans:
        # What comes after a short one might fit as well, but may be long itself; the one before is known to fit.
        short = groups and min(_length(groups[-1]), _duration(span)) < min_seconds
        if short and _fit(groups[-1], span, max_seconds):
            groups[-1].append(span)
        else:
            groups.append([span])
    return [group[0] if len(group) == 1 else _joined(group) for group in groups]


def _duration(span: Span) -> float:
    return float("inf") if span.end is None else span.end - span.start


def _length(group: Sequence[Span]) -> float:
    return _end(group[-1]) - group[0].start


def _fit(group: Sequence[Span], following: Span, max_seconds: float) -> bool:
    last = group[-1]
    if last.end is None or following.end is None or last.labels != following.labels:
        return False
    # Words for a part of a segment only would be wrong for the whole.
    same_kind = (last.text is None) == (following.text is None)
    pause = following.start - last.end
    return same_kind and 0 <= pause <= MAX_PAUSE_SECONDS and following.end - group[0].start <= max_seconds


def _joined(group: Sequence[Span]) -> Span:
    # Several pieces of one span have one id.
    ids = dict.fromkeys(span.id for span in group if span.id)
    texts = [span.text for span in group if span.text]
    return replace(
        group[0], end=group[-1].end, id=" ".join(ids) or None, text=" ".join(texts) or None, joined=tuple(group)
    )


def joined_within(span: Span, n_samples: int, sample_rate: int) -> Span | None:
    """Of those that `span` was made of, all that a recording of `n_samples` has, joined; None if it has none."""
    group = [one for one in span.joined if one.is_within(n_samples, sample_rate)]
    return _joined(group) if group else None


class Recording:
    """A recording that is decoded once, from which spans are taken in the order of their starts.

    Only what a later span needs is held, so that a long one beside short ones does not keep the file in memory.

    Attributes:
        n_samples: decoded so far.

    Args:
        blocks: float32 [n].
        ranges: first sample and the one after the last of each span (None: to the end), in the order of the firsts.
    """

    def __init__(self, blocks: Iterable[np.ndarray], ranges: Iterable[tuple[int, int | None]]) -> None:
        self.n_samples = 0
        self._blocks = iter(blocks)
        self._ranges = list(ranges)
        self._taken = 0
        self._next = 0  # the first span after the one that is being taken that may need what comes now
        self._held: deque[tuple[int, np.ndarray]] = deque()  # each with the place of its first sample

    def take(self) -> Iterator[np.ndarray]:
        """Blocks [n] of the next span, as far as the recording goes."""
        first, end = self._ranges[self._taken]
        self._taken += 1
        self._next = self._taken
        before, self._held = self._held, deque()
        position = first
        while end is None or position < end:
            start = before[0][0] if before else self.n_samples
            block = before.popleft()[1] if before else self._decode()
            if block is None:
                return
            if self._is_needed_later(start, start + len(block)):
                self._held.append((start, block))
            part = block[max(0, first - start) : None if end is None else end - start]
            if len(part):
                position = start + len(block)
                yield part
        self._held.extend(before)

    def _decode(self) -> np.ndarray | None:
        block = next(self._blocks, None)
        if block is not None:
            self.n_samples += len(block)
        return block

    def _is_needed_later(self, start: int, end: int) -> bool:
        while self._next < len(self._ranges) and _ends_by(self._ranges[self._next], start):
            self._next += 1
        return self._next < len(self._ranges) and self._ranges[self._next][0] < end


def _ends_by(range_: tuple[int, int | None], place: int) -> bool:
    return range_[1] is not None and range_[1] <= place
