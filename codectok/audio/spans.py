"""Spans of a recording: cut and join them to fit, and read them in one pass over the file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from codectok.errors import AudioError
from codectok.extras import merged_extra, with_extra, without_extra

# Longest pause over which short neighbours are joined; the pause becomes part of the segment.
MAX_PAUSE_SECONDS = 1.0
# Manifests may round the end of a file up by this much.
END_TOLERANCE_SECONDS = 0.1


@dataclass(frozen=True)
class Labels:
    """Labels of a span. Only spans with equal labels are joined."""

    language: str | None = None
    speaker: str | None = None
    category: str | None = None


@dataclass(frozen=True)
class Span:
    """A span of a recording with its text and labels.

    Attributes:
        start: in seconds.
        end: in seconds; None for the end of the recording.
        id: name that a manifest gives to the span; None if it has none.
        text: words that are spoken; None if unknown.
        labels: language, speaker and category.
        supervisions: timed text inside the span, in order.
        key: name that is unique among the spans of a dataset.
        joined: the spans that were joined to this one.
        channel: number of the channel that is meant, from 0 on; None for all of them, mixed.
        extra: further labels, as a JSON object; None without any.
    """

    start: float = 0.0
    end: float | None = None
    id: str | None = None
    text: str | None = None
    labels: Labels = Labels()
    supervisions: tuple[Span, ...] = ()
    key: str = ""
    joined: tuple[Span, ...] = ()
    channel: int | None = None
    extra: str | None = None

    def sample_range(self, sample_rate: int) -> tuple[int, int | None]:
        """Return the first sample and the one after the last; a span has at least one sample."""
        first = round(self.start * sample_rate)
        return first, None if self.end is None else max(first + 1, round(self.end * sample_rate))

    def seconds_of(self, duration: float) -> float:
        """Return the duration of the span in a recording of `duration` seconds."""
        return max(0.0, (duration if self.end is None else min(self.end, duration)) - self.start)

    def is_within(self, n_samples: int, sample_rate: int) -> bool:
        """Return True if a recording of `n_samples` contains the span, within the tolerance for rounded ends."""
        first, end = self.sample_range(sample_rate)
        return n_samples > first and (end is None or n_samples >= end - round(END_TOLERANCE_SECONDS * sample_rate))

    def missing_end(self, n_samples: int, sample_rate: int, where: str) -> AudioError | None:
        """Return an "unreadable" error if a recording of `n_samples` ends before the span, else None."""
        if self.is_within(n_samples, sample_rate):
            return None
        wanted = f"from {self.start:g} s on" if self.end is None else f"from {self.start:g} to {self.end:g} s"
        message = f"{where} ends at {n_samples / sample_rate:.2f} s, but a span {wanted} was requested."
        return AudioError(message, "unreadable")


def cut_between_supervisions(spans: Iterable[Span], max_seconds: float) -> list[Span]:
    """Cut spans with text that are longer than `max_seconds` in the pauses between their supervisions.

    Each cut is in the middle of a pause. Neighbouring supervisions stay together up to the maximum, with their texts
    joined. The pieces cover the whole span; a piece is too long only if it has no pause to cut in.
    """
    return [
        piece
        for span in spans
        for piece in (
            _cut_in_pauses(span, max_seconds)
            if span.text is not None and span.supervisions and _duration(span) > max_seconds
            else [span]
        )
    ]


def _cut_in_pauses(span: Span, max_seconds: float) -> list[Span]:
    pieces: list[Span] = []
    start = span.start
    held: list[Span] = []
    supervisions = span.supervisions
    # A piece has the further labels of its own supervisions, not those of all.
    span = replace(span, extra=without_extra(span.extra, [supervision.extra for supervision in supervisions]))
    for supervision, following in zip(supervisions, [*supervisions[1:], None], strict=True):
        held.append(supervision)
        spoken_until = max(_end(one) for one in held)
        if following is not None and following.start < spoken_until:
            continue  # overlapping speakers leave no pause to cut in
        end = span.end if following is None else (spoken_until + following.start) / 2
        piece = _piece_of(held, start, end, span)
        if pieces and end is not None and end - pieces[-1].start <= max_seconds:
            pieces[-1] = _piece_of([*pieces[-1].supervisions, *held], pieces[-1].start, end, span)
        else:
            pieces.append(piece)
        start, held = _end(piece), []
    return [replace(piece, supervisions=()) for piece in pieces]


def _piece_of(supervisions: Sequence[Span], start: float, end: float | None, whole: Span) -> Span:
    labels = {supervision.labels for supervision in supervisions}
    return Span(
        start=start,
        end=end,
        id=whole.id,
        text=" ".join(supervision.text for supervision in supervisions if supervision.text) or None,
        labels=labels.pop() if len(labels) == 1 else whole.labels,
        supervisions=tuple(supervisions),
        key=whole.key,
        channel=whole.channel,
        extra=with_extra(whole.extra, merged_extra([supervision.extra for supervision in supervisions])),
    )


def _end(span: Span) -> float:
    return float("inf") if span.end is None else span.end


def join_short(spans: Sequence[Span], min_seconds: float, max_seconds: float) -> list[Span]:
    """Join spans shorter than `min_seconds` with their neighbours, and their texts and ids with a space between.

    Their further labels are merged by `merged_extra`.

    `spans` are in the order of their starts. A short span is joined with the next ones; if they do not fit, with the
    previous one. Spans are joined only if their labels are equal, both or neither have text, the pause between them
    is at most `MAX_PAUSE_SECONDS` and the result is not longer than `max_seconds`.
    """
    groups: list[list[Span]] = []
    for span in spans:
        # Prefer the previous span: it is known to fit, while the next one may be long itself.
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
    if (
        last.end is None
        or following.end is None
        or last.labels != following.labels
        or last.channel != following.channel
    ):
        return False
    # Text that covers only half of a segment would be wrong for the whole.
    same_kind = (last.text is None) == (following.text is None)
    pause = following.start - last.end
    return same_kind and 0 <= pause <= MAX_PAUSE_SECONDS and following.end - group[0].start <= max_seconds


def _joined(group: Sequence[Span]) -> Span:
    # Pieces of one span share an id.
    ids = dict.fromkeys(span.id for span in group if span.id)
    texts = [span.text for span in group if span.text]
    return replace(
        group[0],
        end=group[-1].end,
        id=" ".join(ids) or None,
        text=" ".join(texts) or None,
        joined=tuple(group),
        extra=merged_extra([span.extra for span in group]),
    )


def joined_within(span: Span, n_samples: int, sample_rate: int) -> Span | None:
    """Join again the spans in `span.joined` that a recording of `n_samples` contains; None if it contains none."""
    group = [one for one in span.joined if one.is_within(n_samples, sample_rate)]
    return _joined(group) if group else None


class Recording:
    """Reads spans of a recording in the order of their starts while decoding it once.

    Only blocks that a later span needs are held, so that a long span beside short ones does not keep the file in
    memory.

    Attributes:
        n_samples: number of samples decoded so far.

    Args:
        blocks: the decoded recording, float32 [n] each.
        ranges: first sample of each span and the one after its last (None for the end of the recording), in the order
            of the first samples.
    """

    def __init__(self, blocks: Iterable[np.ndarray], ranges: Iterable[tuple[int, int | None]]) -> None:
        self.n_samples = 0
        self._blocks = iter(blocks)
        self._ranges = list(ranges)
        self._taken = 0
        self._next = 0  # first of the later spans that may need the next block
        self._held: deque[tuple[int, np.ndarray]] = deque()  # each with the index of its first sample

    def take(self) -> Iterator[np.ndarray]:
        """Yield blocks float32 [n] of the next span, which ends early if the recording does."""
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
            wanted = block[max(0, first - start) : None if end is None else end - start]
            if len(wanted):
                position = start + len(block)
                yield wanted
        self._held.extend(before)

    def _decode(self) -> np.ndarray | None:
        block = next(self._blocks, None)
        if block is not None:
            self.n_samples += len(block)
        return block

    def _is_needed_later(self, start: int, end: int) -> bool:
        while self._next < len(self._ranges) and _ends_before(self._ranges[self._next], start):
            self._next += 1
        return self._next < len(self._ranges) and self._ranges[self._next][0] < end


def _ends_before(range_: tuple[int, int | None], sample: int) -> bool:
    return range_[1] is not None and range_[1] <= sample
