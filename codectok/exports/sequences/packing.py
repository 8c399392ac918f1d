"""Packing documents into sequences of at most so many tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from codectok.errors import InputError

from .documents import Document

Packing = Literal["none", "next-fit", "first-fit"]
TooLong = Literal["drop", "truncate", "split", "keep"]
# Sequences that first-fit keeps open: its memory is so many times their length.
OPEN_SEQUENCES = 64


@dataclass(frozen=True)
class PackingOptions:
    """How documents become sequences.

    Attributes:
        packing: "none": each document is one; "next-fit": documents fill a sequence until one does not fit;
            "first-fit": a document goes into the first of the last sequences that has room for it.
        length: tokens that a sequence has at most; None for no limit, with packing "none" only.
        too_long: what becomes of longer documents: left out, cut off, cut into pieces, or a longer sequence of their
            own.
    """

    packing: Packing = "none"
    length: int | None = None
    too_long: TooLong = "drop"

    def __post_init__(self) -> None:
        for value, known in ((self.packing, get_args(Packing)), (self.too_long, get_args(TooLong))):
            if value not in known:
                raise InputError(f"There is no {value!r}; choose one of {', '.join(known)}.")
        if self.length is None and self.packing != "none":
            raise InputError(f"Packing {self.packing} needs a length: pass --length.")
        if self.length is not None and self.length < 1:
            raise InputError(f"Sequences of {self.length} tokens are impossible.")


@dataclass
class _Open:
    """A sequence that has room left."""

    documents: list[Document] = field(default_factory=list)
    filled: int = 0

    def add(self, document: Document) -> None:
        self.documents.append(document)
        self.filled += len(document.ids)


def pack(documents: Iterable[Document], options: PackingOptions) -> Iterator[list[Document]]:
    """Sequences as lists of documents, the same for the same documents; what is too long stays alone (see `fit`)."""
    length = options.length
    limit = 1 if options.packing == "next-fit" else OPEN_SEQUENCES
    waiting: list[_Open] = []
    for document in documents:
        if options.packing == "none" or length is None or len(document.ids) > length:
            yield [document]
            continue
        fits = next((one for one in waiting if one.filled + len(document.ids) <= length), None)
        if fits is None:
            if len(waiting) == limit:
                yield waiting.pop(0).documents
            fits = _Open()
            waiting.append(fits)
        fits.add(document)
    yield from (one.documents for one in waiting)


def fit(
    documents: Iterable[Document], options: PackingOptions, on_drop: Callable[[Document], None] = lambda document: None
) -> Iterator[Document]:
    """The documents, or what becomes of those that are too long; `on_drop` hears of those left out."""
    length = options.length
    for document in documents:
        if length is None or len(document.ids) <= length or options.too_long == "keep":
            yield document
        elif options.too_long == "drop":
            on_drop(document)
        elif options.too_long == "truncate":
            yield _truncated(document, length)
        else:
            yield from _split(document, length)


def _truncated(document: Document, length: int) -> Document:
    """Its first ids, the token that closes the audio if that is cut, and its end."""
    ids = document.ids
    cut = max(0, length - document.n_end)
    closing = ids[:0]
    for audio in document.audio:
        if audio.start - audio.opening < cut < audio.stop + audio.closing:
            frames = (cut - audio.closing - audio.start) // audio.frame
            if frames > 0:
                closing = ids[audio.stop : audio.stop + audio.closing]
                cut = audio.start + frames * audio.frame
            else:
                cut = audio.start - audio.opening
            break
    end = ids[len(ids) - document.n_end :][:length]
    return replace(document, ids=np.concatenate([ids[:cut], closing, end]), audio=(), n_end=0)


def _split(document: Document, length: int) -> Iterator[Document]:
    """Pieces that have whole frames, unless a frame is longer than they are; its seconds are counted once."""
    start = 0
    while start < len(document.ids):
        end = start + length
        for audio in document.audio:
            if audio.start < end < audio.stop:
                border = end - (end - audio.start) % audio.frame
                end = border if border > start else end
        seconds = document.seconds if start == 0 else 0.0
        yield replace(document, ids=document.ids[start:end], seconds=seconds, audio=(), n_end=0)
        start = end
