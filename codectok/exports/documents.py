"""From rows of tables and texts to documents: ids of a language model's vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..tokens.table import TokenRow
from .templates import FIELDS, CodesPiece, Template, TextPiece, TokenPiece
from .text_tokenizer import TextTokenizer, TokenIds

Voice = Callable[[TokenRow], np.ndarray]
"""Codes [n_frames, n_codebooks] of the voice that a row is to be spoken in; `MissingPartError` where there is none."""


@dataclass(frozen=True)
class Document:
    """Ids int32 [n] of a document, and what it was made of: the id of its (first) row, its seconds of audio."""

    ids: np.ndarray
    id: str
    dataset: str
    seconds: float = 0.0


class MissingPartError(InputError):
    """A row has not what the template asks for."""


class DocumentBuilder:
    """Puts documents together as a template says.

    Args:
        template: what a document consists of.
        tokens: ids of special tokens and codes.
        tokenizer: of text; needed where the template has some.
        voice: needed where the template has one.

    Raises:
        InputError: the template needs what is not given.
    """

    def __init__(
        self, template: Template, tokens: TokenIds, tokenizer: TextTokenizer | None, voice: Voice | None = None
    ) -> None:
        if template.has_text and tokenizer is None:
            raise InputError("The template has text: pass --tokenizer with the folder of a tokenizer.")
        if template.has_voice and voice is None:
            raise InputError('The template has a voice: pass --voice with "speaker" or the id of a row.')
        self.template = template
        self._tokens, self._tokenizer, self._voice = tokens, tokenizer, voice
        pieces = [piece for piece in template.pieces if isinstance(piece, TokenPiece)]
        self._special = {piece.token: np.array([tokens.of_token(piece.token)], np.int32) for piece in pieces}

    def of_rows(self, rows: Sequence[TokenRow], dataset: str) -> Document:
        """The document of one row or of several; `MissingPartError` if one has not what the template asks for."""
        first = rows[0]
        parts = list(self._parts(self.template.begin, first))
        for row in rows:
            parts += self._parts(self.template.row, row)
        parts += self._parts(self.template.end, first)
        return Document(_joined(parts), first.id, dataset, sum(row.duration for row in rows))

    def of_text(self, text: str, text_id: str, dataset: str) -> Document:
        """The document of a text."""
        values = {"text": text, "id": text_id, "dataset": dataset}
        parts = [part for piece in self.template.pieces for part in self._text_or_token(piece, values, text_id)]
        return Document(_joined(parts), text_id, dataset)

    def _parts(self, pieces: Sequence[TextPiece | TokenPiece | CodesPiece], row: TokenRow) -> Iterator[np.ndarray]:
        for piece in pieces:
            if isinstance(piece, CodesPiece):
                codes = row.codes
                if piece.codes == "voice":
                    assert self._voice is not None, "it was checked in the beginning"
                    codes = self._voice(row)
                yield self._tokens.vocabulary.ids_of(codes).astype(np.int32)
            else:
                values = {field: getattr(row, field) for field in FIELDS}
                yield from self._text_or_token(piece, values, row.id)

    def _text_or_token(
        self, piece: TextPiece | TokenPiece | CodesPiece, values: dict[str, str], row_id: str
    ) -> Iterator[np.ndarray]:
        if isinstance(piece, TokenPiece):
            yield self._special[piece.token]
        elif isinstance(piece, TextPiece):
            assert self._tokenizer is not None, "it was checked in the beginning"
            missing = [field for field in piece.fields if not values.get(field)]
            if missing:
                raise MissingPartError(f"The row {row_id} has no {missing[0]}.")
            yield self._tokenizer.ids_of(piece.fill(values))


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)
