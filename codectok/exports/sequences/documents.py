"""From rows of tables and texts to documents: ids of a language model's vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from codectok.errors import InputError
from codectok.tokens.table import TokenRow

from .templates import FIELDS, CodesPiece, Template, TextPiece, TokenPiece
from .text_tokenizer import TextTokenizer, TokenIds, TokenInTextError

Voice = Callable[[TokenRow], np.ndarray]
"""Codes [n_frames, n_codebooks] of the voice that a row is to be spoken in; `MissingPartError` where there is none."""


@dataclass(frozen=True)
class Span:
    """Where codes are in a document: from `start` to before `stop`.

    Attributes:
        frame: ids of a frame.
        opening, closing: ids of the token before them and of that behind, 0 where there is none.
    """

    start: int
    stop: int
    frame: int
    opening: int
    closing: int


@dataclass(frozen=True)
class Document:
    """Ids int32 [n] of a document, and what it was made of.

    Attributes:
        ids: of all its tokens.
        id: of its (first) row.
        dataset: that it comes from.
        seconds: of audio.
        audio: where codes are.
        n_end: how many ids at its end are the template's `end`.
    """

    ids: np.ndarray
    id: str
    dataset: str
    seconds: float = 0.0
    audio: tuple[Span, ...] = ()
    n_end: int = 0


class MissingPartError(InputError):
    """A row has not what the template asks for."""


OnMissing = Callable[[TokenRow, MissingPartError], None]


def refuse_row(row: TokenRow, error: MissingPartError) -> None:
    """Stop at a row that has not what the template asks for."""
    raise error


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

    def of_rows(
        self,
        rows: Iterable[TokenRow],
        dataset: str,
        length: int | None = None,
        on_missing: OnMissing = refuse_row,
    ) -> Iterator[Document]:
        """The documents of a row, or of neighbouring rows of a recording.

        A document ends before a row with which it would have more than `length` ids, and another one goes on. A row
        that has not what the template asks for is left to `on_missing`; it ends a document as well.
        """
        growing: _Growing | None = None
        for row in rows:
            try:
                part = self._part(self.template.row, row)
                if growing is not None and length is not None and growing.n_ids + len(part.ids) > length:
                    yield growing.document(dataset)
                    growing = None
                growing = growing or self._begun(row)
            except MissingPartError as error:
                if growing is not None:
                    yield growing.document(dataset)
                    growing = None
                on_missing(row, error)
            else:
                growing.add(part, row.duration)
        if growing is not None:
            yield growing.document(dataset)

    def of_text(self, text: str, text_id: str, dataset: str, others: Mapping[str, str] | None = None) -> Document:
        """The document of a text, of which `others` says more; `MissingPartError` if the template asks for yet more."""
        values = {**(others or {}), "text": text, "id": text_id, "dataset": dataset}
        parts, end = (
            [part for piece in pieces for part in self._text_or_token(piece, values, text_id)]
            for pieces in ((*self.template.begin, *self.template.row), self.template.end)
        )
        return Document(_joined([*parts, *end]), text_id, dataset, n_end=sum(map(len, end)))

    def _begun(self, first: TokenRow) -> _Growing:
        return _Growing(first.id, self._part(self.template.end, first), [self._part(self.template.begin, first)])

    def _part(self, pieces: Sequence[TextPiece | TokenPiece | CodesPiece], row: TokenRow) -> _Part:
        """What some pieces of the template are for a row."""
        found: list[np.ndarray] = []
        audio: list[Span] = []
        for before, piece, behind in zip((None, *pieces), pieces, (*pieces[1:], None), strict=False):
            if isinstance(piece, CodesPiece):
                start = sum(map(len, found))
                ids = self._tokens.vocabulary.ids_of(self._codes(piece, row)).astype(np.int32)
                marks = (int(isinstance(piece, TokenPiece)) for piece in (before, behind))
                audio.append(Span(start, start + len(ids), self._tokens.vocabulary.n_codebooks, *marks))
                found.append(ids)
            else:
                values = {field: getattr(row, field) for field in FIELDS}
                found += self._text_or_token(piece, values, row.id)
        return _Part(_joined(found), tuple(audio))

    def _codes(self, piece: CodesPiece, row: TokenRow) -> np.ndarray:
        if piece.codes == "row":
            return row.codes
        assert self._voice is not None, "it was checked in the beginning"
        return self._voice(row)

    def _text_or_token(
        self, piece: TextPiece | TokenPiece | CodesPiece, values: Mapping[str, str | None], row_id: str
    ) -> Iterator[np.ndarray]:
        if isinstance(piece, TokenPiece):
            yield self._special[piece.token]
        elif isinstance(piece, TextPiece):
            assert self._tokenizer is not None, "it was checked in the beginning"
            missing = [field for field in piece.fields if not values.get(field)]
            if missing:
                raise MissingPartError(f"The row {row_id} has no {missing[0]}.")
            try:
                yield self._tokenizer.ids_of(piece.fill({name: value for name, value in values.items() if value}))
            except TokenInTextError as error:
                raise MissingPartError(f"The row {row_id} has a text that cannot be used: {error}.") from None


@dataclass(frozen=True)
class _Part:
    """Ids of some pieces, and where codes are among them."""

    ids: np.ndarray
    audio: tuple[Span, ...]


@dataclass
class _Growing:
    """A document to which rows are added; `n_ids` counts its end, too."""

    id: str
    end: _Part
    parts: list[_Part]
    seconds: float = 0.0
    n_ids: int = field(init=False)

    def __post_init__(self) -> None:
        self.n_ids = sum(len(part.ids) for part in (*self.parts, self.end))

    def add(self, part: _Part, seconds: float) -> None:
        self.parts.append(part)
        self.seconds += seconds
        self.n_ids += len(part.ids)

    def document(self, dataset: str) -> Document:
        audio: list[Span] = []
        start = 0
        for part in (*self.parts, self.end):
            audio += [replace(one, start=start + one.start, stop=start + one.stop) for one in part.audio]
            start += len(part.ids)
        ids = _joined([part.ids for part in (*self.parts, self.end)])
        return Document(ids, self.id, dataset, self.seconds, tuple(audio), len(self.end.ids))


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)
