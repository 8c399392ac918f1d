"""Stretches of a recording: which of them belong together, and reading them in one pass over the file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

# Short neighbours are joined over a pause of at most so many seconds, which then is part of the segment.
MAX_PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class Labels:
    """What is known of a stretch beside its audio and text; stretches are joined only where all of it is the same."""

    language: str | None = None
    speaker: str | None = None
    category: str | None = None


@dataclass(frozen=True)
class Stretch:
    """From `start` to `end` in seconds (None: to the end of the recording), and what is known of it.

    `parts` are stretches inside it, in order, that say when which of its words are spoken.
    """

    start: float = 0.0
    end: float | None = None
    id: str | None = None
    text: str | None = None
    labels: Labels = Labels()
    parts: tuple[Stretch, ...] = ()


def cut_between_parts(stretches: Iterable[Stretch], max_seconds: float) -> list[Stretch]:
    """Cut stretches with text that are too long in the middle of the pauses between their parts, where there are any.

    Neighbouring parts stay together up to the maximum, their texts joined, and no time is left out.
    """
    return [
        piece
        for stretch in stretches
        for piece in (
            _between_parts(stretch, max_seconds)
            if stretch.text is not None and stretch.parts and _duration(stretch) > max_seconds
            else [stretch]
        )
    ]


def _between_parts(stretch: Stretch, max_seconds: float) -> list[Stretch]:
    pieces: list[Stretch] = []
    start = stretch.start
    held: list[Stretch] = []
    for part, following in zip(stretch.parts, [*stretch.parts[1:], None], strict=True):
        held.append(part)
        spoken_until = max(_end(one) for one in held)
        if following is not None and following.start < spoken_until:
            continue  # where speakers overlap there is no pause to cut in
        end = stretch.end if following is None else (spoken_until + following.start) / 2
        piece = _of_parts(held, start, end, stretch)
        if pieces and end is not None and end - pieces[-1].start <= max_seconds:
            pieces[-1] = _of_parts([*pieces[-1].parts, *held], pieces[-1].start, end, stretch)
        else:
            pieces.append(piece)
        start, held = _end(piece), []
    return [replace(piece, parts=()) for piece in pieces]


def _of_parts(parts: Sequence[Stretch], start: float, end: float | None, whole: Stretch) -> Stretch:
    labels = {part.labels for part in parts}
    return Stretch(
        start=start,
        end=end,
        id=whole.id,
        text=" ".join(part.text for part in parts if part.text) or None,
        labels=labels.pop() if len(labels) == 1 else whole.labels,
        parts=tuple(parts),
    )


def _end(stretch: Stretch) -> float:
    return float("inf") if stretch.end is None else stretch.end


def join_short(stretches: Sequence[Stretch], min_seconds: float, max_seconds: float) -> list[Stretch]:
    """Join stretches (in the order of their starts) under the minimum with neighbours; texts and ids are joined.

    A short one takes in those after it; where none fits, it goes to the one before it.
    """
    joined: list[Stretch] = []
    for stretch in stretches:
        if joined and _duration(joined[-1]) < min_seconds and _fit(joined[-1], stretch, max_seconds):
            joined[-1] = _join(joined[-1], stretch)
        elif joined and _duration(stretch) < min_seconds and _fit(joined[-1], stretch, max_seconds):
            # What comes after it might fit as well, but may be long itself; this one is known to.
            joined[-1] = _join(joined[-1], stretch)
        else:
            joined.append(stretch)
    return joined


def _duration(stretch: Stretch) -> float:
    return float("inf") if stretch.end is None else stretch.end - stretch.start


def _fit(first: Stretch, second: Stretch, max_seconds: float) -> bool:
    if first.end is None or second.end is None or first.labels != second.labels:
        return False
    # Words for a part of a segment only would be wrong for the whole.
    same_kind = (first.text is None) == (second.text is None)
    pause = second.start - first.end
    return same_kind and 0 <= pause <= MAX_PAUSE_SECONDS and second.end - first.start <= max_seconds


def _join(first: Stretch, second: Stretch) -> Stretch:
    return replace(first, end=second.end, text=_words(first.text, second.text), id=_words(first.id, second.id))


def _words(first: str | None, second: str | None) -> str | None:
    return " ".join(part for part in (first, second) if part) or None


class Recording:
    """A recording that is decoded once, from which stretches are taken in the order of their starts.

    Attributes:
        n_samples: decoded so far.

    Args:
        blocks: float32 [n].
        sample_rate: of them in Hz.
        starts: of the stretches that will be taken, in order, in samples.
    """

    def __init__(self, blocks: Iterable[np.ndarray], sample_rate: int, starts: Iterable[int]) -> None:
        self.n_samples = 0
        self.sample_rate = sample_rate
        self._blocks = iter(blocks)
        self._starts = deque(starts)
        self._held = np.zeros(0, np.float32)
        self._held_from = 0

    def take(self, end: int | None) -> Iterator[np.ndarray]:
        """Blocks [n] of the next stretch, up to sample `end` or the end of the recording."""
        position = self._starts.popleft()
        while end is None or position < end:
            while self.n_samples <= position and self._decode(position):
                pass
            block = self._held[position - self._held_from :][: None if end is None else end - position]
            if len(block) == 0:
                return
            position += len(block)
            self._forget(position)
            yield block

    def read_to_end(self) -> None:
        """Decode what is left, to know that it is sound and how long the recording is."""
        while self._decode(self.n_samples):
            self._forget(self.n_samples)

    def _decode(self, needed_from: int) -> bool:
        self._forget(needed_from)
        block = next(self._blocks, None)
        if block is None:
            return False
        self._held = np.concatenate([self._held, block]) if len(self._held) else block
        self.n_samples += len(block)
        return True

    def _forget(self, position: int) -> None:
        """Drop what lies before `position`, unless a later stretch begins there."""
        keep_from = min(position, self._starts[0]) if self._starts else position
        dropped = min(max(0, keep_from - self._held_from), len(self._held))
        self._held = self._held[dropped:]
        self._held_from += dropped
