"""Reads the rows of tables and texts as documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

from codectok.exports.sequences.builder import DocumentBuilder
from codectok.exports.sequences.builders import make_builder
from codectok.exports.sequences.documents import Document, MissingFieldError
from codectok.exports.sequences.items import Voice
from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenIds
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.rejects import Reject
from codectok.sources.source import Source
from codectok.sources.texts import text_rows
from codectok.tokens.source_rows import code_rows, recordings_in, token_rows
from codectok.tokens.table import TableMetadata, TokenRow

from .neighbours import Neighbours
from .options import DocumentOptions
from .rejected import RejectedDocument
from .templates import Templates
from .voices import same_voice, voices_of_speakers


@dataclass(frozen=True)
class RowReader:
    """Makes documents of rows and texts; all units of a worker share one.

    Attributes:
        metadata: of the tables.
        voice: row of the voice that documents imitate; None if each row has one of its speaker.
        neighbours: order of files, if a document is a whole recording, else None.
    """

    settings: DocumentOptions
    templates: Templates
    metadata: TableMetadata
    texts: tuple[str, ...]
    tokenizer: TextTokenizer | None
    tokens: TokenIds
    voice: TokenRow | None
    neighbours: Neighbours | None = None

    def open(self, unit: Unit) -> UnitRows:
        """Open a unit to read its documents."""
        return UnitRows(self, unit)

    def builder(self, name: str, sources: Sequence[Source]) -> DocumentBuilder:
        """Return the builder of a dataset's documents; may read all rows of `sources` to know their voices."""
        template, settings = self.templates[name], self.settings
        voice = self._voice_among(sources) if template.has_voice else None
        return make_builder(template, self.tokens, self.tokenizer, voice, settings.loss, settings.seed or 0)

    def _voice_among(self, sources: Sequence[Source]) -> Voice | None:
        if self.voice is not None:
            return same_voice(self.voice)
        if self.settings.voice is None:
            return None
        rows = (row for source in sources for row in token_rows(source, self.metadata))
        return voices_of_speakers(rows, self.metadata.code_type)


class UnitRows:
    """Yields the documents of a unit."""

    def __init__(self, reader: RowReader, unit: Unit) -> None:
        self._reader, self._unit = reader, unit
        # Without a reference to this object: voices of a large part are freed as soon as it is written.
        self._builder_of = cache(partial(_builder, reader, unit))

    def __call__(self, name: str, output: UnitOutput | None) -> Iterator[Document]:
        """Yield the documents of a dataset, and count rows and rejects in `output`."""
        builder = self._builder_of(name)
        documents_of = _of_texts if name in self._reader.texts else self._of_rows
        for source in self._unit.sources_of(name):
            yield from documents_of(builder, source, name, output)

    def _of_rows(
        self, builder: DocumentBuilder, source: Source, name: str, output: UnitOutput | None
    ) -> Iterator[Document]:
        metadata, neighbours = self._reader.metadata, self._reader.neighbours
        on_missing = partial(_reject_missing, output, name)
        if builder.takes_code_rows:
            on_row = (lambda seconds: None) if output is None else partial(output.read, name)
            for batch in code_rows(source, metadata, builder.columns):
                yield from builder.of_code_rows(batch, name, on_row, on_missing)
            return
        recordings: Iterator[Iterator[TokenRow]]
        if neighbours is not None and builder.template.document == "recording":
            recordings = recordings_in(source, metadata, neighbours.before(source), neighbours.after(source))
        else:
            recordings = (iter([row]) for row in token_rows(source, metadata))
        for rows in recordings:
            counted = _counted(rows, name, output)
            yield from builder.of_rows(counted, name, self._reader.settings.packing.length, on_missing)


def _builder(reader: RowReader, unit: Unit, name: str) -> DocumentBuilder:
    return reader.builder(name, unit.sources_of(name))


def _of_texts(builder: DocumentBuilder, source: Source, name: str, output: UnitOutput | None) -> Iterator[Document]:
    for row in text_rows(source, builder.template.extra_names):
        if output is not None:
            output.read(name)
        document: Document | None = None
        reason, message = row.reason, row.problem
        if row.text:
            try:
                document = builder.of_text(row.text, row.id, name, row.fields)
            except MissingFieldError as error:
                reason, message = "filtered", str(error)
        elif row.text is not None:
            reason, message = "empty", "The text is empty."
        if document is not None:
            yield document
        elif output is not None:
            output.reject(Reject(name, row.id, 0.0, None, "export", reason, message))


def _reject_missing(output: UnitOutput | None, name: str, row: TokenRow, error: MissingFieldError) -> None:
    if output is not None:
        span = (name, row.id, row.start, row.duration)
        output.reject(RejectedDocument(*span, "export", "filtered", str(error), error.pattern))


def _counted(rows: Iterable[TokenRow], name: str, output: UnitOutput | None) -> Iterator[TokenRow]:
    for row in rows:
        if output is not None:
            output.read(name, row.duration)
        yield row
