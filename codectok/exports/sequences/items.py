"""Encodes items of templates: text, single tokens and codes become ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from codectok.errors import InputError
from codectok.exports.choices import Loss
from codectok.extras import labels_in
from codectok.tokens.table import TokenRow

from .documents import CodeSpan, MissingFieldError
from .templates import EXTRA, FIELDS, CodesItem, DocumentTemplate, TemplateItem, TextItem, TokenItem
from .text_tokenizer import TextTokenizer, TokenIds, TokenInTextError

Voice = Callable[[TokenRow], np.ndarray]
"""Returns codes [n_frames, n_codebooks] of the voice to speak a row in; raises `MissingFieldError` if there is none."""

RowParts = Callable[[Mapping[str, Sequence[Any]], int], tuple[tuple[np.ndarray, ...], int]]
"""Returns the ids of items for a row and their number, by the columns of several rows and the number of the row."""


@dataclass(frozen=True)
class PreparedItem:
    """An item and its neighbours.

    Attributes:
        learned: True if a model learns to predict the ids of the item.
        opening, closing: 1 if a single token stands directly before (behind) it, else 0.
    """

    item: TemplateItem
    learned: bool
    opening: int
    closing: int


@dataclass(frozen=True)
class EncodedItems:
    """Ids of some template items.

    Attributes:
        ids: int32 [n].
        code_spans: positions of codes among them.
        learned: bool [n], see `codectok.exports.sequences.documents.Document`; None without a loss.
    """

    ids: np.ndarray
    code_spans: tuple[CodeSpan, ...] = ()
    learned: np.ndarray | None = None

    @classmethod
    def joined(cls, parts: Sequence[EncodedItems]) -> EncodedItems:
        """Concatenate parts."""
        if len(parts) == 1:
            return parts[0]
        spans: list[CodeSpan] = []
        start = 0
        for part in parts:
            for span in part.code_spans:
                spans.append(span._replace(start=start + span.start, stop=start + span.stop))
            start += len(part.ids)
        masks = [part.learned for part in parts if part.learned is not None]
        ids = np.concatenate([part.ids for part in parts]) if parts else np.zeros(0, np.int32)
        return cls(ids, tuple(spans), np.concatenate(masks) if masks else None)

    @property
    def not_learned(self) -> EncodedItems:
        """The same ids, none of which is learned."""
        return replace(self, learned=None if self.learned is None else np.zeros(len(self.ids), bool))


class ItemEncoder:
    """Encodes the items of a template for rows and texts.

    Args:
        template: has all items.
        tokens: ids of special tokens and codes.
        tokenizer: for text; required if the template has text.
        voice: required if the template has a voice.
        loss: positions that a model learns; None if nobody asks.

    Raises:
        InputError: the tokenizer, the voice, the id of a token, or audio to learn is missing.
    """

    def __init__(
        self,
        template: DocumentTemplate,
        tokens: TokenIds,
        tokenizer: TextTokenizer | None,
        voice: Voice | None,
        loss: Loss | None,
    ) -> None:
        if template.has_text and tokenizer is None:
            raise InputError("The template has text: pass --tokenizer with the folder of a tokenizer.")
        if template.has_voice and voice is None:
            raise InputError('The template has a voice: pass --voice with "speaker" or the id of a row.')
        if loss == Loss.AUDIO and not template.has_codes:
            raise InputError(
                "--loss audio needs audio in all documents, but texts have none; pass --loss all or answer."
            )
        self.loss = loss
        self._tokens, self._tokenizer, self._voice = tokens, tokenizer, voice
        self._extra_names = template.extra_names
        self._padding = tokens.padding_id
        items = [item for item in template.items if isinstance(item, TokenItem)]
        self._special = {item.token: np.array([tokens.of_token(item.token)], np.int32) for item in items}

    def prepare(
        self, items: Sequence[TemplateItem], answer: int | None = None, behind_item: TemplateItem | None = None
    ) -> tuple[PreparedItem, ...]:
        """Find the neighbours of items that follow each other.

        Args:
            items: in order.
            answer: number of the first item of an answer; None if they hold none.
            behind_item: item that stands before them, of which they may hold the closing token.
        """
        prepared = []
        for number, item in enumerate(items):
            before = items[number - 1] if number else behind_item
            behind = items[number + 1] if number + 1 < len(items) else None
            opening = int(number > 0 and isinstance(before, TokenItem))
            closing = int(isinstance(behind, TokenItem))
            ends_audio = isinstance(item, TokenItem) and isinstance(before, CodesItem)
            learned = {
                Loss.ALL: True,
                Loss.AUDIO: isinstance(item, CodesItem) or ends_audio,
                Loss.ANSWER: answer is not None and number >= answer,
                None: False,
            }[self.loss]
            prepared.append(PreparedItem(item, learned, opening, closing))
        return tuple(prepared)

    def of_row(self, items: Sequence[PreparedItem], row: TokenRow) -> EncodedItems:
        """Encode items for a row; raises `MissingFieldError` if it lacks a field."""
        found: list[EncodedItems] = []
        values: Mapping[str, str | None] = {}
        for prepared in items:
            item = prepared.item
            if isinstance(item, TextItem) and not values:
                values = self._values(row)
            if isinstance(item, CodesItem):
                ids = self.of_codes(self._codes(item, row))
                frame = self._tokens.vocabulary.n_codebooks
                span = CodeSpan(0, len(ids), frame, prepared.opening, prepared.closing, item.codes == "row")
                found.append(self._encoded(ids, prepared, (span,)))
            else:
                found.append(self._text_or_token(prepared, values, row.id))
        return EncodedItems.joined(found)

    def of_fields(self, items: Sequence[PreparedItem], values: Mapping[str, str], text_id: str) -> EncodedItems:
        """Encode items without codes for a text; raises `MissingFieldError` if `values` lack a field."""
        return EncodedItems.joined([self._text_or_token(item, values, text_id) for item in items])

    @property
    def flat(self) -> bool:
        """True if the ids of frames follow each other, so that rows can be encoded together."""
        return self._tokens.vocabulary.layout.order == "flat"

    def of_codes(self, codes: np.ndarray) -> np.ndarray:
        """Return the ids int32 [n] of codes [n_frames, n_codebooks]."""
        return self._tokens.vocabulary.ids_of(codes, self._padding, np.int32)

    def of_row_parts(self, items: Sequence[PreparedItem]) -> RowParts:
        """Return a function that encodes items without codes and further labels for a row of some columns."""
        if all(isinstance(item.item, TokenItem) for item in items):
            tokens = [self._special[item.item.token] for item in items if isinstance(item.item, TokenItem)]
            same = ((np.concatenate(tokens),) if tokens else (), len(tokens))
            return lambda columns, number: same

        texts = [prepared.item for prepared in items if isinstance(prepared.item, TextItem)]
        fields = tuple(dict.fromkeys(field for item in texts for field in item.fields))

        def encode(columns: Mapping[str, Sequence[str | None]], number: int) -> tuple[tuple[np.ndarray, ...], int]:
            values = {name: columns[name][number] for name in fields}
            row_id = str(columns["id"][number])
            parts = tuple([self._ids_of(prepared.item, values, row_id) for prepared in items])
            return parts, sum(map(len, parts))

        return encode

    def _encoded(self, ids: np.ndarray, prepared: PreparedItem, spans: tuple[CodeSpan, ...] = ()) -> EncodedItems:
        return EncodedItems(ids, spans, None if self.loss is None else np.full(len(ids), prepared.learned))

    def _codes(self, item: CodesItem, row: TokenRow) -> np.ndarray:
        if item.codes == "row":
            return row.codes
        assert self._voice is not None, "checked in __init__"
        return self._voice(row)

    def _values(self, row: TokenRow) -> Mapping[str, str | None]:
        labels = labels_in(row.extra, self._extra_names)
        return {
            **{field: getattr(row, field) for field in FIELDS},
            **{f"{EXTRA}{name}": label for name, label in labels.items()},
        }

    def _text_or_token(self, prepared: PreparedItem, values: Mapping[str, str | None], row_id: str) -> EncodedItems:
        return self._encoded(self._ids_of(prepared.item, values, row_id), prepared)

    def _ids_of(self, item: TemplateItem, values: Mapping[str, str | None], row_id: str) -> np.ndarray:
        if isinstance(item, TokenItem):
            return self._special[item.token]
        assert isinstance(item, TextItem), "texts have no codes"
        assert self._tokenizer is not None, "checked in __init__"
        missing = [field for field in item.fields if not values.get(field)]
        if missing:
            raise MissingFieldError(f"The row {row_id} has no {missing[0]}.")
        try:
            return self._tokenizer.ids_of(item.fill(values))
        except TokenInTextError as error:
            raise MissingFieldError(f"The row {row_id} has a text that cannot be used: {error}.") from None
