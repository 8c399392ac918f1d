"""Packs documents into sequences of limited length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from codectok.errors import InputError
from codectok.exports.choices import Packing, TooLong, check_choice

from .documents import Document

OnDrop = Callable[[Document, Literal["too_long", "filtered"]], None]
"""Called with a document that is left out, and the reason of its reject."""

# First-fit keeps this many sequences open, which bounds its memory.
OPEN_SEQUENCES = 64


@dataclass(frozen=True)
class PackingOptions:
    """How documents become sequences.

    Attributes:
        packing: "none": one document per sequence; "next-fit": fill a sequence until a document does not fit;
            "first-fit": put a document into the first open sequence that has room for it.
        length: largest number of tokens in a sequence; None for no limit, allowed with packing "none" only.
        too_long: how longer documents are handled: dropped, truncated, split, or kept as a longer sequence.
    """

    packing: Packing = Packing.NONE
    length: int | None = None
    too_long: TooLong = TooLong.DROP

    def __post_init__(self) -> None:
        check_choice(self.packing, Packing)
        check_choice(self.too_long, TooLong)
        if self.length is None and self.packing != Packing.NONE:
            raise InputError(f"Packing {self.packing} needs a length: pass --length.")
        if self.length is not None and self.length < 1:
            raise InputError(f"Sequences of {self.length} tokens are impossible; give a length of at least 1.")


@dataclass(slots=True)
class _OpenSequence:
    documents: list[Document]
    filled: int


class Packer:
    """Packs documents into sequences, deterministically.

    A document longer than a sequence stays alone, see `fit`.
    """

    def __init__(self, options: PackingOptions) -> None:
        self._options = options
        self._limit = 1 if options.packing == Packing.NEXT_FIT else OPEN_SEQUENCES
        self._open: list[_OpenSequence] = []

    def add(self, document: Document) -> list[Document] | None:
        """Add a document, and return the sequence that it completes, if any."""
        length, n_ids = self._options.length, len(document.ids)
        if self._options.packing == Packing.NONE or length is None or n_ids > length:
            return [document]
        for sequence in self._open:
            filled = sequence.filled + n_ids
            if filled <= length:
                sequence.documents.append(document)
                sequence.filled = filled
                return None
        complete = self._open.pop(0).documents if len(self._open) == self._limit else None
        self._open.append(_OpenSequence([document], n_ids))
        return complete

    def finish(self) -> Iterator[list[Document]]:
        """Yield the sequences that still have room."""
        while self._open:
            yield self._open.pop(0).documents


def fit(
    documents: Iterable[Document], options: PackingOptions, on_drop: OnDrop = lambda *_: None
) -> Iterator[Document]:
    """Apply `options.too_long` to documents longer than a sequence, and drop those of which nothing can be learned.

    `on_drop` is called with each dropped document, and the reason of its reject: "too_long", or "filtered" if nothing
    of it (or of a part that was split off) is learned.
    """
    length = options.length
    for document in documents:
        if length is None or len(document.ids) <= length or options.too_long == TooLong.KEEP:
            if _teaches(document):
                yield document
            else:
                on_drop(document, "filtered")
        elif options.too_long == TooLong.SPLIT:
            for part in _split(document, length):
                if _teaches(part):
                    yield part
                else:
                    on_drop(part, "filtered")
        else:
            kept = _truncated(document, length) if options.too_long == TooLong.TRUNCATE else None
            if kept is not None and _teaches(kept):
                yield kept
            else:
                on_drop(document, "too_long")


def _teaches(document: Document) -> bool:
    """Return True unless the document has labels, none of which is learned; its first one never is."""
    return document.learned is None or bool(document.learned[1:].any())


def _truncated(document: Document, length: int) -> Document | None:
    """Keep the first ids and the template's end; audio that is cut keeps whole frames and its closing token.

    Ids behind the cut are not learned, since a model would learn to end too early. None if only the end is left.
    """
    n_ids = len(document.ids)
    cut = max(0, length - document.n_end)
    closing = slice(0, 0)
    for span in document.code_spans:
        if span.start - span.opening < cut < span.stop + span.closing:
            frames = (cut - span.closing - span.start) // span.frame
            if frames > 0:
                closing = slice(span.stop, span.stop + span.closing)
                cut = span.start + frames * span.frame
            else:
                cut = span.start - span.opening
            break
    if cut <= 0:
        return None
    end = slice(n_ids - document.n_end, n_ids)
    kept = _selected(document, (slice(0, cut), closing, end))
    if kept.learned is not None:
        kept.learned[cut:] = False
    return kept._replace(n_truncated=n_ids - len(kept.ids))


def _split(document: Document, length: int) -> Iterator[Document]:
    """Cut between frames, unless a frame is longer than `length`."""
    start = 0
    while start < len(document.ids):
        end = start + length
        for span in document.code_spans:
            if span.start < end < span.stop:
                border = end - (end - span.start) % span.frame
                end = border if border > start else end
        yield _selected(document, (slice(start, end),))
        start = end


def _selected(document: Document, places: tuple[slice, ...]) -> Document:
    """Keep the ids at some places, and the seconds of their codes."""
    ids = np.concatenate([document.ids[place] for place in places])
    learned = document.learned
    if learned is not None:
        learned = np.concatenate([learned[place] for place in places])
    spans = [span for span in document.code_spans if span.counted]
    kept = sum(max(0, min(span.stop, place.stop) - max(span.start, place.start)) for span in spans for place in places)
    seconds = document.seconds * kept / max(1, sum(span.stop - span.start for span in spans))
    return document._replace(ids=ids, learned=learned, seconds=seconds, code_spans=(), n_end=0)
