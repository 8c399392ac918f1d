"""Documents: token ids of a language model, and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from codectok.errors import InputError

# Value of labels that trainers leave out of the loss.
NOT_LEARNED = -100


# Named tuples, since millions are made and their creation takes a third of that of frozen dataclasses.
class CodeSpan(NamedTuple):
    """Position of codes in a document, `ids[start:stop]`.

    Attributes:
        frame: ids per frame.
        opening, closing: 1 if a single token stands directly before (behind) the codes, else 0.
        counted: False for a voice, whose duration does not count.
    """

    start: int
    stop: int
    frame: int
    opening: int
    closing: int
    counted: bool = True


class Document(NamedTuple):
    """Token ids of a document, and where they come from.

    Attributes:
        ids: int32 [n].
        id: id of its first row, or of its text.
        dataset: name of its dataset.
        seconds: duration of its audio; after a cut that of the codes that are left.
        code_spans: positions of its codes.
        n_end: number of ids at its end that belong to the template's `end`.
        clips: ids of all its rows, or of a conversation and the audio in it; parts of a document have all of them.
        source: of its rows, or of its text; None if unknown.
        learned: bool [n], True for ids that a model learns to predict; None if that was not asked for.
        pattern: pattern of its audio and text, such as ATAT; None if it follows none.
        n_truncated: number of ids that were cut off.
    """

    ids: np.ndarray
    id: str
    dataset: str
    seconds: float = 0.0
    code_spans: tuple[CodeSpan, ...] = ()
    n_end: int = 0
    clips: tuple[str, ...] = ()
    source: str | None = None
    learned: np.ndarray | None = None
    pattern: str | None = None
    n_truncated: int = 0


class MissingFieldError(InputError):
    """A row lacks a field that the template needs.

    Attributes:
        pattern: of the document that would have begun with the row; None if it follows none.
    """

    pattern: str | None = None


def lengths_of(documents: Sequence[Document]) -> np.ndarray:
    """Return the number of ids of each document, int32."""
    return np.array([len(document.ids) for document in documents], np.int32)


def loss_mask_of(documents: Sequence[Document]) -> np.ndarray:
    """Return bool [n] for the ids of all documents, one behind the other: True for ids that are learned.

    The first id of a document is never learned: it follows another document, from which it cannot be predicted.
    """
    masks = []
    for document in documents:
        assert document.learned is not None, "the builder was asked for it"
        mask = document.learned.copy()
        mask[:1] = False
        masks.append(mask)
    return np.concatenate(masks) if masks else np.zeros(0, bool)


def positions_of(documents: Sequence[Document]) -> np.ndarray:
    """Return int32 [n] for the ids of all documents, one behind the other: the position of an id in its document."""
    lengths = lengths_of(documents)
    firsts = np.cumsum(lengths, dtype=np.int64) - lengths
    positions: np.ndarray = np.arange(int(lengths.sum(dtype=np.int64)), dtype=np.int64) - np.repeat(firsts, lengths)
    return positions.astype(np.int32)
