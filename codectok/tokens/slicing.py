"""Cuts long rows of a token table into slices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from codectok.audio.spans import Span, cut_between_supervisions
from codectok.errors import AudioError
from codectok.extras import with_extra, without_extra

from .table import TokenRow


def cut_row(
    row: TokenRow, span: Span, max_seconds: float, sample_rate: int, frame_size: int
) -> Iterator[TokenRow | AudioError]:
    """Cut `row` into slices of at most `max_seconds`, at frames.

    A row without text becomes slices of equal length. A row with text is cut between the supervisions of `span`, from
    which the row was encoded; if these leave a slice too long, an error ("too_long") is yielded instead. Each slice has
    the further labels of its own supervisions.
    """
    max_frames = max(1, int(max_seconds * sample_rate / frame_size))
    if len(row.codes) <= max_frames:
        yield row
        return
    if row.text is None:
        count = -(-len(row.codes) // max_frames)
        starts = [len(row.codes) * number // count for number in range(count)]
        for first, end in zip(starts, [*starts[1:], len(row.codes)], strict=True):
            yield _slice(row, first, end, sample_rate, frame_size)
        return
    # One frame less than the maximum: pauses need not lie at frames.
    limit = (max_frames - 1) * frame_size / sample_rate
    spoken = cut_between_supervisions([span], limit)
    starts = [round((part.start - span.start) * sample_rate / frame_size) for part in spoken]
    borders = list(zip([0, *starts[1:]], [*starts[1:], len(row.codes)], strict=True))
    if not all(0 < end - first <= max_frames for first, end in borders):
        message = f"{row.duration:.2f} s with one text are more than {max_seconds:g} s and cannot be cut."
        yield AudioError(message, "too_long")
        return
    added = without_extra(row.extra, [span.extra])  # the channel
    for part, (first, end) in zip(spoken, borders, strict=True):
        language, speaker, extra = part.labels.language, part.labels.speaker, with_extra(part.extra, added)
        words = replace(row, text=part.text, language=language, speaker=speaker, extra=extra)
        yield _slice(words, first, end, sample_rate, frame_size)


def _slice(row: TokenRow, first: int, end: int, sample_rate: int, frame_size: int) -> TokenRow:
    start = first * frame_size
    stop = row.n_samples if end == len(row.codes) else end * frame_size
    return replace(
        row,
        id=f"{row.id}_{start:010d}",
        start=row.start + start / sample_rate,
        duration=(stop - start) / sample_rate,
        n_samples=stop - start,
        codes=row.codes[first:end],
    )
