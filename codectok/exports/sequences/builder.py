"""Makes documents from rows of token tables and from texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from codectok.errors import InputError
from codectok.exports.choices import Loss
from codectok.tokens.code_rows import CodeRows
from codectok.tokens.table import TokenRow

from .documents import CodeSpan, Document, MissingFieldError
from .items import EncodedItems, ItemEncoder, Voice
from .templates import CodesItem, DocumentTemplate, Template, TokenItem
from .text_tokenizer import TextTokenizer, TokenIds

OnMissing = Callable[[TokenRow, MissingFieldError], None]
OnRow = Callable[[float], None]
"""Called with the seconds of a row."""


def raise_missing(row: TokenRow, error: MissingFieldError) -> None:
    """Raise `error`: the default for rows that lack a field."""
    raise error


class DocumentBuilder(ABC):
    """Builds documents by a template.

    Args:
        template: items of a document.
        tokens: ids of special tokens and codes.
        tokenizer: for text; required if the template has text.
        voice: required if the template has a voice.
        loss: positions that a model learns; None if nobody asks.

    Raises:
        InputError: the tokenizer, the voice, the id of a token, or a part to learn is missing.
    """

    def __init__(
        self,
        template: DocumentTemplate,
        tokens: TokenIds,
        tokenizer: TextTokenizer | None,
        voice: Voice | None = None,
        loss: Loss | None = None,
    ) -> None:
        self.template: DocumentTemplate = template
        self.encoder = ItemEncoder(template, tokens, tokenizer, voice, loss)

    @abstractmethod
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

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Columns that `of_code_rows` needs; None for all."""
        return None

    @property
    def takes_code_rows(self) -> bool:
        """True if `of_code_rows` builds the same documents as `of_rows` of each row, faster."""
        return False

    def of_code_rows(
        self, rows: CodeRows, dataset: str, on_row: OnRow, on_missing: OnMissing = raise_missing
    ) -> Iterator[Document]:
        """Build the document of each row, if `takes_code_rows`; `on_row` is called before each."""
        raise NotImplementedError

    def of_text(self, text: str, text_id: str, dataset: str, others: Mapping[str, str] | None = None) -> Document:
        """Build the document of a text; `others` holds further fields.

        Raises:
            MissingFieldError: the template needs a field that is not given.
        """
        raise InputError("Documents of this template are made of audio; give a template of text.")


class RowsBuilder(DocumentBuilder):
    """Builds documents whose rows all have the same items, see `DocumentBuilder`."""

    def __init__(
        self,
        template: Template,
        tokens: TokenIds,
        tokenizer: TextTokenizer | None,
        voice: Voice | None = None,
        loss: Loss | None = None,
    ) -> None:
        super().__init__(template, tokens, tokenizer, voice, loss)
        if loss == Loss.ANSWER and not template.answer:
            raise InputError("--loss answer needs a template with `answer`; move the items to learn there from `row`.")
        self._template, prepare = template, self.encoder.prepare
        self._begin, self._end = prepare(template.begin), prepare(template.end, 0, template.of_row[-1])
        self._row = prepare(template.of_row, answer=len(template.row))

    def of_rows(
        self,
        rows: Iterable[TokenRow],
        dataset: str,
        length: int | None = None,
        on_missing: OnMissing = raise_missing,
    ) -> Iterator[Document]:
        """Build documents, see `DocumentBuilder.of_rows`."""
        current: OpenDocument | None = None
        for row in rows:
            try:
                encoded = self.encoder.of_row(self._row, row)
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
                current.add(encoded, row, row.duration if self.template.has_codes else 0.0)
        if current is not None:
            yield current.document(dataset)

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Columns that `of_code_rows` needs, see `DocumentBuilder.columns`."""
        return None if self.template.has_text else ("id", "source", "duration")

    @property
    def takes_code_rows(self) -> bool:
        """True for rows with their codes once, see `DocumentBuilder.takes_code_rows`."""
        template, codes = self._template, CodesItem(codes="row")
        return (
            template.document == "row"
            and self.encoder.loss is None
            and self.encoder.flat
            and not template.extra_names
            and [item for item in template.items if isinstance(item, CodesItem)] == [codes]
            and codes in template.of_row
            and all(isinstance(item, TokenItem) for item in (*template.begin, *template.end))
        )

    def of_code_rows(
        self, rows: CodeRows, dataset: str, on_row: OnRow, on_missing: OnMissing = raise_missing
    ) -> Iterator[Document]:
        """Build the document of each row, see `DocumentBuilder.of_code_rows`."""
        place = next(number for number, item in enumerate(self._row) if isinstance(item.item, CodesItem))
        prepared = self._row[place]
        before = self.encoder.of_row_parts((*self._begin, *self._row[:place]))
        behind = self.encoder.of_row_parts((*self._row[place + 1 :], *self._end))
        ids, frame = self.encoder.of_codes(rows.codes), rows.codes.shape[1]
        borders, columns, n_end = rows.borders, rows.columns, len(self._end)
        opening, closing = prepared.opening, prepared.closing
        rows_of_ids = zip(columns["id"], columns["source"], columns["duration"], strict=True)
        for number, (row_id, source, seconds) in enumerate(rows_of_ids):
            on_row(seconds)
            own = ids[borders[number] * frame : borders[number + 1] * frame]
            try:
                (first, start), (last, _) = before(columns, number), behind(columns, number)
            except MissingFieldError as error:
                on_missing(rows.row(number), error)
                continue
            span = CodeSpan(start, start + len(own), frame, opening, closing)
            whole = np.concatenate((*first, own, *last))
            yield Document(whole, row_id, dataset, seconds, (span,), n_end, (row_id,), source)

    def of_text(self, text: str, text_id: str, dataset: str, others: Mapping[str, str] | None = None) -> Document:
        """Build the document of a text, see `DocumentBuilder.of_text`."""
        values = {**(others or {}), "text": text, "id": text_id, "dataset": dataset}
        begin, row, end = (
            self.encoder.of_fields(items, values, text_id) for items in (self._begin, self._row, self._end)
        )
        return OpenDocument(text_id, values.get("source"), end, [begin, row], clips=[text_id]).document(dataset)

    def _open(self, first: TokenRow) -> OpenDocument:
        end, begin = self.encoder.of_row(self._end, first), self.encoder.of_row(self._begin, first)
        return OpenDocument(first.id, first.source, end, [begin])


@dataclass
class OpenDocument:
    """A document to which rows are added.

    Attributes:
        id, source: of its first row, or of its text.
        end: items behind the last row.
        encoded: items so far.
        seconds: duration so far.
        clips: ids of its rows so far.
        n_ids: number of its ids, `end` included.
    """

    id: str
    source: str | None
    end: EncodedItems
    encoded: list[EncodedItems]
    seconds: float = 0.0
    clips: list[str] = field(default_factory=list)
    n_ids: int = field(init=False)

    def __post_init__(self) -> None:
        self.n_ids = sum(len(items.ids) for items in (*self.encoded, self.end))

    def add(self, items: EncodedItems, row: TokenRow, seconds: float) -> None:
        """Append a row, with `seconds` of its audio."""
        self.encoded.append(items)
        self.clips.append(row.id)
        self.seconds += seconds
        self.n_ids += len(items.ids)

    def document(self, dataset: str, pattern: str | None = None) -> Document:
        """Return the whole document."""
        whole = EncodedItems.joined([*self.encoded, self.end])
        return Document(
            whole.ids,
            self.id,
            dataset,
            self.seconds,
            whole.code_spans,
            len(self.end.ids),
            tuple(self.clips),
            self.source,
            whole.learned,
            pattern,
        )
