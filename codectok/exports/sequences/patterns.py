"""Makes documents whose rows alternate between audio and text, by patterns."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice, pairwise

from codectok.exports.choices import Loss
from codectok.tokens.table import TokenRow

from .builder import DocumentBuilder, OnMissing, OpenDocument, RowsBuilder, raise_missing
from .documents import Document, MissingFieldError
from .items import EncodedItems, PreparedItem, Voice
from .templates import CodesItem, PatternTemplate, TemplateItem, TextItem
from .text_tokenizer import TextTokenizer, TokenIds

AUDIO, TEXT = "A", "T"
# Name of the pattern of a row that is left alone.
ALONE = "alone"


class PatternBuilder(DocumentBuilder):
    """Builds documents by the patterns of a template, see `PatternTemplate`.

    The pattern of a document is drawn by its shares; the seed and the id of the first row decide it alone, so that it
    does not depend on other documents.

    Args:
        template: with patterns.
        tokens, tokenizer, voice, loss: see `DocumentBuilder`; an answer is the last row of a document.
        seed: of the choice of patterns.
    """

    def __init__(
        self,
        template: PatternTemplate,
        tokens: TokenIds,
        tokenizer: TextTokenizer | None,
        voice: Voice | None = None,
        loss: Loss | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(template, tokens, tokenizer, voice, loss)
        self._alone = RowsBuilder(template.alone, tokens, tokenizer, voice, loss)
        self._patterns, self._seed, self._loss = template.patterns, seed, loss
        prepare = self.encoder.prepare
        self._begin, self._end = prepare(template.begin), prepare(template.end, answer=0)
        texts = _continued(template.text, template.between_texts)
        self._units: dict[tuple[str | None, str], tuple[PreparedItem, ...]] = {}
        for before, letter, change, items in (
            (None, AUDIO, (), template.audio),
            (AUDIO, AUDIO, (), template.audio),
            (TEXT, AUDIO, template.to_audio, template.audio),
            (None, TEXT, (), template.text),
            (TEXT, TEXT, (), texts),
            (AUDIO, TEXT, template.to_text, template.text),
        ):
            first = next(n for n, item in enumerate(items) if isinstance(item, CodesItem | TextItem))
            self._units[before, letter] = prepare((*change, *items), answer=len(change) + first)

    def of_rows(
        self,
        rows: Iterable[TokenRow],
        dataset: str,
        length: int | None = None,
        on_missing: OnMissing = raise_missing,
    ) -> Iterator[Document]:
        """Build documents, see `DocumentBuilder.of_rows`."""
        following = iter(rows)
        waiting: deque[TokenRow] = deque()
        while waiting or (waiting := deque(islice(following, 1))):
            pattern = self._pattern_of(waiting[0])
            waiting.extend(islice(following, max(0, len(pattern) - len(waiting))))
            encoded, taken, missing = self._encode(pattern[: len(waiting)], waiting, length)
            if len(taken) == 1 < len(pattern):
                yield from self._left_alone(taken[0], dataset, length, on_missing)
            elif taken:
                yield self._document(pattern[: len(taken)], encoded, taken, dataset)
            for _ in taken:
                waiting.popleft()
            if missing is not None:
                on_missing(waiting.popleft(), missing)

    def _encode(
        self, pattern: str, rows: Iterable[TokenRow], length: int | None
    ) -> tuple[list[EncodedItems], list[TokenRow], MissingFieldError | None]:
        """Encode rows until one lacks a field, or does not fit behind others; returns the error of such a row."""
        encoded: list[EncodedItems] = []
        taken: list[TokenRow] = []
        n_ids = 0
        for (before, letter), row in zip(pairwise([None, *pattern]), rows, strict=False):
            try:
                if not taken:
                    n_ids = sum(len(self.encoder.of_row(items, row).ids) for items in (self._begin, self._end))
                unit = self.encoder.of_row(self._units[before, str(letter)], row)
            except MissingFieldError as error:
                return encoded, taken, error
            if taken and length is not None and n_ids + len(unit.ids) > length:
                break
            n_ids += len(unit.ids)
            encoded.append(unit)
            taken.append(row)
        return encoded, taken, None

    def _document(self, pattern: str, encoded: list[EncodedItems], rows: list[TokenRow], dataset: str) -> Document:
        begin, end = (self.encoder.of_row(items, rows[0]) for items in (self._begin, self._end))
        opened = OpenDocument(rows[0].id, rows[0].source, end, [begin])
        for number, (unit, row) in enumerate(zip(encoded, rows, strict=True), start=1):
            is_question = self._loss == Loss.ANSWER and number < len(rows)
            seconds = row.duration if pattern[number - 1] == AUDIO else 0.0
            opened.add(unit.not_learned if is_question else unit, row, seconds)
        return opened.document(dataset, pattern)

    def _left_alone(self, row: TokenRow, dataset: str, length: int | None, on_missing: OnMissing) -> Iterator[Document]:
        for document in self._alone.of_rows([row], dataset, length, on_missing):
            yield replace(document, pattern=ALONE)

    def _pattern_of(self, first: TokenRow) -> str:
        digest = hashlib.sha256(f"{self._seed} {first.dataset} {first.id}".encode()).digest()
        drawn = int.from_bytes(digest[:8]) / 2**64 * sum(self._patterns.values())
        for pattern, share in sorted(self._patterns.items()):
            drawn -= share
            if drawn < 0:
                return pattern
        return max(self._patterns)


def _continued(items: tuple[TemplateItem, ...], separator: str) -> tuple[TemplateItem, ...]:
    """Return items of a text that follows another one: its first text begins with the separator."""
    first = next(number for number, item in enumerate(items) if isinstance(item, TextItem))
    item = items[first]
    assert isinstance(item, TextItem), "found as one"
    return (*items[:first], TextItem(text=f"{separator}{item.text}"), *items[first + 1 :])
