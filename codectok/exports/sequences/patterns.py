"""Makes documents whose rows alternate between audio and text, by patterns."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise

from codectok.errors import InputError
from codectok.exports.choices import Loss
from codectok.tokens.table import TokenRow

from .builder import DocumentBuilder, OnMissing, OpenDocument, RowsBuilder, raise_missing
from .documents import Document, MissingFieldError
from .items import EncodedItems, PreparedItem
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
        tokens, tokenizer, loss: see `DocumentBuilder`; an answer is the last row of a document.
        seed: of the choice of patterns.
    """

    def __init__(
        self,
        template: PatternTemplate,
        tokens: TokenIds,
        tokenizer: TextTokenizer | None,
        loss: Loss | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(template, tokens, tokenizer, None, loss)
        silent = next((pattern for pattern in template.patterns if AUDIO not in pattern), None)
        if loss == Loss.AUDIO and silent is not None:
            raise InputError(f"--loss audio needs audio in all documents, but the pattern {silent} has none.")
        self._alone = RowsBuilder(template.alone, tokens, tokenizer, None, loss)
        self._patterns, self._seed, self._loss = template.patterns, seed, loss
        prepare = self.encoder.prepare
        self._begin = prepare(template.begin)
        # Behind audio, the end may hold the token that closes it.
        self._ends = {
            letter: prepare(template.end, 0, items[-1])
            for letter, items in ((AUDIO, template.audio), (TEXT, template.text))
        }
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
            behind_audio = template.audio[-1] if before == AUDIO and change else None
            self._units[before, letter] = prepare((*change, *items), len(change) + first, behind_audio)

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
            try:
                opened = self._open(pattern, waiting, length)
            except MissingFieldError as error:
                error.pattern = pattern
                on_missing(waiting.popleft(), error)
                continue
            taken = [waiting.popleft() for _ in opened.clips]
            document = opened.document(dataset, pattern[: len(taken)])
            if len(taken) == 1 < len(pattern):
                document = self._transcript(taken[0], dataset, length) or document
            yield document

    def _open(self, pattern: str, rows: Iterable[TokenRow], length: int | None) -> OpenDocument:
        """Encode rows until one lacks a field, or does not fit behind others; the first one must have its fields."""
        opened: OpenDocument | None = None
        ends: dict[str, EncodedItems] = {}
        for (before, letter), row in zip(pairwise([None, *pattern]), rows, strict=False):
            assert letter is not None, "None comes first"
            try:
                unit = self.encoder.of_row(self._units[before, letter], row)
                if opened is None:
                    ends = {kind: self.encoder.of_row(self._ends[kind], row) for kind in set(pattern)}
                    begin = self.encoder.of_row(self._begin, row)
                    opened = OpenDocument(row.id, row.source, ends[letter], [begin])
                elif length is not None and opened.n_ids + len(unit.ids) > length:
                    break
            except MissingFieldError:
                if opened is None:
                    raise
                break
            opened.add(unit, row, row.duration if letter == AUDIO else 0.0)
        assert opened is not None, "there is a first row"
        opened.end = ends[pattern[len(opened.clips) - 1]]
        if self._loss == Loss.ANSWER:
            opened.encoded[:-1] = [part.not_learned for part in opened.encoded[:-1]]
        return opened

    def _transcript(self, row: TokenRow, dataset: str, length: int | None) -> Document | None:
        """Build the document of a row that is left alone; None if it lacks a field, or is longer than `length`."""
        try:
            (document,) = self._alone.of_rows([row], dataset)
        except MissingFieldError:
            return None
        fits = length is None or len(document.ids) <= length
        return document._replace(pattern=ALONE) if fits else None

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
