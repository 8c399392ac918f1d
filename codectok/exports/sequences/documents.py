"""Makes documents, token ids of a language model, from rows of token tables and from texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from codectok.errors import InputError
from codectok.extras import labels_in
from codectok.tokens.table import TokenRow

from .templates import EXTRA, FIELDS, CodesItem, Template, TemplateItem, TextItem, TokenItem
from .text_tokenizer import TextTokenizer, TokenIds, TokenInTextError

Voice = Callable[[TokenRow], np.ndarray]
"""Returns codes [n_frames, n_codebooks] of the voice to speak a row in; raises `MissingFieldError` if there is none."""


@dataclass(frozen=True)
class CodeSpan:
    """Position of codes in a document, `ids[start:stop]`.

    Attributes:
        frame: ids per frame.
        opening, closing: 1 if a single token stands directly before (behind) the codes, else 0.
    """

    start: int
    stop: int
    frame: int
    opening: int
    closing: int


@dataclass(frozen=True)
class Document:
    """Token ids of a document, and where they come from.

    Attributes:
        ids: int32 [n].
        id: id of its first row, or of its text.
        dataset: name of its dataset.
        seconds: duration of its audio.
        code_spans: positions of its codes.
        n_end: number of ids at its end that belong to the template's `end`.
        clips: ids of all its rows; parts of a document that is split have those of the whole.
        source: of its rows, or of its text; None if unknown.
    """

    ids: np.ndarray
    id: str
    dataset: str
    seconds: float = 0.0
    code_spans: tuple[CodeSpan, ...] = ()
    n_end: int = 0
    clips: tuple[str, ...] = ()
    source: str | None = None


class MissingFieldError(InputError):
    """A row lacks a field that the template needs."""


OnMissing = Callable[[TokenRow, MissingFieldError], None]


def raise_missing(row: TokenRow, error: MissingFieldError) -> None:
    """Raise `error`: the default for rows that lack a field."""
    raise error


class DocumentBuilder:
    """Builds documents by a template.

    Args:
        template: items of a document.
        tokens: ids of special tokens and codes.
        tokenizer: for text; required if the template has text.
        voice: required if the template has a voice.

    Raises:
        InputError: the tokenizer, the voice or the id of a token is missing.
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
        self._extra_names = template.extra_names
        self._padding = tokens.padding_id
        items = [item for item in template.items if isinstance(item, TokenItem)]
        self._special = {item.token: np.array([tokens.of_token(item.token)], np.int32) for item in items}

    def of_rows(
        self,
        rows: Iterable[TokenRow],
        dataset: str,
        length: int | None = None,
        on_missing: OnMissing = raise_missing,
    ) -> Iterator[Document]:
        """Build the documents of one row, or of consecutive rows of a recording.

        A document ends before the row that would make it longer than `length`, and the next document begins there. A
        row that lacks a field is passed to `on_missing`; it ends a document, too.
        """
        current: _OpenDocument | None = None
        for row in rows:
            try:
                encoded = self._encode(self.template.row, row)
                if current is not None and length is not None and current.n_ids + len(encoded.ids) > length:
                    yield current.document(dataset)
                    current = None
                current = current or self._open(row)
            except MissingFieldError as error:
                if current is not None:
                    yield current.document(dataset)
                    current = None
                on_missing(row, error)
            else:
                current.add(encoded, row)
        if current is not None:
            yield current.document(dataset)

    def of_text(self, text: str, text_id: str, dataset: str, others: Mapping[str, str] | None = None) -> Document:
        """Build the document of a text; `others` holds further fields.

        Raises:
            MissingFieldError: the template needs a field that is not given.
        """
        values = {**(others or {}), "text": text, "id": text_id, "dataset": dataset}
        begin, end = (
            [ids for item in items for ids in self._text_or_token(item, values, text_id)]
            for items in ((*self.template.begin, *self.template.row), self.template.end)
        )
        return Document(
            _joined([*begin, *end]),
            text_id,
            dataset,
            n_end=sum(map(len, end)),
            clips=(text_id,),
            source=values.get("source"),
        )

    def _open(self, first: TokenRow) -> _OpenDocument:
        end, begin = self._encode(self.template.end, first), self._encode(self.template.begin, first)
        return _OpenDocument(first.id, first.source, end, [begin])

    def _encode(self, items: Sequence[TemplateItem], row: TokenRow) -> _EncodedItems:
        found: list[np.ndarray] = []
        spans: list[CodeSpan] = []
        for before, item, behind in zip((None, *items), items, (*items[1:], None), strict=False):
            if isinstance(item, CodesItem):
                start = sum(map(len, found))
                ids = self._tokens.vocabulary.ids_of(self._codes(item, row), self._padding).astype(np.int32)
                marks = (int(isinstance(neighbour, TokenItem)) for neighbour in (before, behind))
                spans.append(CodeSpan(start, start + len(ids), self._tokens.vocabulary.n_codebooks, *marks))
                found.append(ids)
            else:
                values = {field: getattr(row, field) for field in FIELDS}
                labels = labels_in(row.extra, self._extra_names)
                values |= {f"{EXTRA}{name}": label for name, label in labels.items()}
                found += self._text_or_token(item, values, row.id)
        return _EncodedItems(_joined(found), tuple(spans))

    def _codes(self, item: CodesItem, row: TokenRow) -> np.ndarray:
        if item.codes == "row":
            return row.codes
        assert self._voice is not None, "checked in __init__"
        return self._voice(row)

    def _text_or_token(self, item: TemplateItem, values: Mapping[str, str | None], row_id: str) -> Iterator[np.ndarray]:
        if isinstance(item, TokenItem):
            yield self._special[item.token]
        elif isinstance(item, TextItem):
            assert self._tokenizer is not None, "checked in __init__"
            missing = [field for field in item.fields if not values.get(field)]
            if missing:
                raise MissingFieldError(f"The row {row_id} has no {missing[0]}.")
            try:
                yield self._tokenizer.ids_of(item.fill({name: value for name, value in values.items() if value}))
            except TokenInTextError as error:
                raise MissingFieldError(f"The row {row_id} has a text that cannot be used: {error}.") from None


@dataclass(frozen=True)
class _EncodedItems:
    """Ids of some template items, and the positions of codes among them."""

    ids: np.ndarray
    code_spans: tuple[CodeSpan, ...]


@dataclass
class _OpenDocument:
    """A document to which rows are added; `n_ids` includes its end."""

    id: str
    source: str
    end: _EncodedItems
    encoded: list[_EncodedItems]
    seconds: float = 0.0
    clips: list[str] = field(default_factory=list)
    n_ids: int = field(init=False)

    def __post_init__(self) -> None:
        self.n_ids = sum(len(items.ids) for items in (*self.encoded, self.end))

    def add(self, items: _EncodedItems, row: TokenRow) -> None:
        self.encoded.append(items)
        self.clips.append(row.id)
        self.seconds += row.duration
        self.n_ids += len(items.ids)

    def document(self, dataset: str) -> Document:
        spans: list[CodeSpan] = []
        start = 0
        for items in (*self.encoded, self.end):
            spans += [replace(span, start=start + span.start, stop=start + span.stop) for span in items.code_spans]
            start += len(items.ids)
        ids = _joined([items.ids for items in (*self.encoded, self.end)])
        clips = tuple(self.clips)
        return Document(ids, self.id, dataset, self.seconds, tuple(spans), len(self.end.ids), clips, self.source)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int32)
