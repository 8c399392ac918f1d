"""`export sequences` and `export megatron`: documents of a language model from tables and texts."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import JsonValue

from codectok.errors import InputError
from codectok.exports.sequences.builder import DocumentBuilder
from codectok.exports.sequences.builders import make_builder
from codectok.exports.sequences.documents import Document, MissingFieldError
from codectok.exports.sequences.items import Voice
from codectok.exports.sequences.mixing import Stream, mix
from codectok.exports.sequences.packing import fit
from codectok.exports.sequences.parquet import SequencesMetadata, SequenceWriter
from codectok.exports.sequences.sidecar import SidecarWriter
from codectok.exports.sequences.template_files import load_template
from codectok.exports.sequences.templates import END_OF_SEQUENCE, CodesItem, PatternTemplate, Template
from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenIds
from codectok.pipelines.engine.faults import LastingUnitError
from codectok.pipelines.engine.job import Job, JobReporter, RunUnit, WorkerContext
from codectok.pipelines.engine.output.folder import unit_hash
from codectok.pipelines.engine.output.unit_files import part_name
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.cutting import CuttingPolicy
from codectok.pipelines.engine.planning.store import header_of
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.kinds import Kind
from codectok.sources.listing.arguments import Argument
from codectok.sources.rejects import Reject
from codectok.sources.source import Source
from codectok.sources.texts import text_rows
from codectok.sources.unused import Unused
from codectok.tokens.layouts.record import LayoutRecord
from codectok.tokens.mixing import arithmetic_of
from codectok.tokens.source_rows import code_rows, recordings_in, token_rows
from codectok.tokens.table import TokenRow
from codectok.tokens.vocabulary import Vocabulary

from .neighbours import Neighbours
from .options import DocumentOptions
from .reports import DocumentReporter, MegatronReporter
from .sources import EXPORT_KINDS, ExportSources, find_row, table_of_row
from .verify import MegatronVerifier, SequencesVerifier
from .voices import BY_SPEAKER, same_voice, voices_of_speakers
from .writing import Writer, packed, write_sequences

HISTOGRAM_STEP = 100


SequencesOf = Callable[[Unit, UnitOutput], Iterator[tuple[str, list[Document]]]]
"""Yields the sequences of a unit, each with the name of its folder, and counts documents and rejects in the output."""

BuilderOf = Callable[[str], DocumentBuilder]
"""Returns the builder of a dataset's documents, by name."""


class DocumentJob(Job):
    """Makes documents of rows and texts, mixes and packs them; subclasses choose the output format.

    Attributes:
        output_factor_of_loss: output with labels or a loss mask, over that without.
        too_long: message for a document that is left out, with a place for the number of its tokens.
    """

    output_factor_of_loss: float
    too_long: str = "The document has {} tokens, more than a sequence."

    row_name = "documents"
    # 2: recordings continue in the next file, strings of tokens are text. 3: a vocabulary ends behind special tokens
    # that a tokenizer has elsewhere, texts that are null are `filtered`. 4: files record mixed arithmetic. 6: a switch
    # token also stands in a row left alone, and an end that closes the audio of a pattern is learned with it; pieces in
    # which nothing is learned are `filtered`, and cut documents have the seconds of their codes.
    bytes_version = 6
    code_name = "tokens"
    kinds = EXPORT_KINDS

    def __init__(self, settings: DocumentOptions, tables: Sequence[str], texts: Sequence[str] = ()) -> None:
        self.settings = settings
        if settings.loss is not None:
            self.output_bytes_per_second *= self.output_factor_of_loss
        voices = [] if settings.voice is None else filter(None, [table_of_row(settings.voice)])
        self.sources = ExportSources.of(tables, texts, settings.allow_mixed, [*voices])
        self.vocabulary = Vocabulary.for_codec(self.sources.metadata, settings.offset, settings.layout)
        self.templates = _templates(settings, self.sources)
        settings.check_names([*self.sources.tables, *self.sources.texts])
        self._voice_row: TokenRow | None = None
        if settings.voice not in (None, BY_SPEAKER):
            self._voice_row = find_row(tables, self.sources.metadata, str(settings.voice))
        # Detect missing and unsuitable options here, not in a worker.
        tokenizer = self._load_tokenizer()
        tokens = TokenIds.of(self.vocabulary, tokenizer, settings.end_of_sequence)
        voice = self._voice(()) if settings.voice is not None else None
        for template in self.templates.values():
            make_builder(template, tokens, tokenizer, voice, settings.loss)
        if voice is not None and not any(template.has_voice for template in self.templates.values()):
            raise InputError("A voice is given, but the template has none (`codes: voice`); --task tts has one.")
        self._describe(tokens, tokenizer)

    def _describe(self, tokens: TokenIds, tokenizer: TextTokenizer | None) -> None:
        """Set the attributes that describe the ids of the output."""
        self.end_of_sequence = tokens.end_of_sequence
        self.vocabulary_end = self.vocabulary.end_with(tokens.special_tokens.values())
        self.largest_id = max(self.vocabulary_end - 1, self.end_of_sequence or 0, *tokens.known.values())
        self._tokenizer_fingerprint = tokenizer.fingerprint if tokenizer else None

    def options(self) -> Mapping[str, JsonValue]:
        """Options that decide ids and their order."""
        settings = self.settings
        voice = self._voice_row
        layout = LayoutRecord.unless_default(settings.layout)
        by_pattern = any(isinstance(template, PatternTemplate) for template in self.templates.values())
        return {
            **self.sources.options(),
            **({} if layout is None else {"layout": f"{layout.name} {layout.sha256}"}),
            "offset": settings.offset,
            "task": {name: self._described(template) for name, template in sorted(self.templates.items())},
            **({} if settings.loss is None else {"loss": settings.loss}),
            **({"seed": settings.seed or 0} if by_pattern else {}),
            "texts": list(self.sources.texts),
            "tokenizer": self._tokenizer_fingerprint,
            "eos": self.end_of_sequence,
            "voice": settings.voice
            if voice is None
            else f"{voice.id} {hashlib.sha256(voice.codes.tobytes()).hexdigest()[:16]}",
            "weights": None if settings.weights is None else dict(settings.weights),
            "until": settings.until if settings.weights else None,
            "part_megabytes": settings.part_megabytes,
            **asdict(settings.packing),
            **({"shorter_lengths": sorted(settings.shorter_lengths)} if settings.shorter_lengths else {}),
        }

    def _described(self, template: Template | PatternTemplate) -> str:
        """Everything of a template that decides the output: without a loss an answer is a part of the row."""
        if isinstance(template, PatternTemplate):
            total = sum(template.patterns.values())
            shares = {pattern: share / total for pattern, share in sorted(template.patterns.items())}
            return template.model_copy(update={"patterns": shares}).model_dump_json()
        if self.settings.loss is None:
            return template.without_answer.model_dump_json(exclude={"answer"})
        return template.model_dump_json()

    def reads(self, argument: Argument, path: str, kind: Kind | None) -> bool:
        """Read the same files of a table as its other readers, and all files of a text."""
        return self.sources.reads(argument, path, kind)

    @property
    def cutting(self) -> CuttingPolicy:
        """Units of `part_megabytes`, each with rows of all datasets that have a weight."""
        unit_bytes = self.settings.part_megabytes * 1e6
        weighted = tuple(self.settings.weights or ())
        return CuttingPolicy(unit_bytes=unit_bytes, in_every_unit=weighted)

    @property
    def reporter(self) -> JobReporter:
        """Advises if much was too long."""
        return DocumentReporter(self)

    def start(self, context: WorkerContext) -> RunUnit:
        """Load what all units share, and return the function that writes the sequences of a unit."""
        return partial(self._write_part, self.start_sequences(context))

    def start_sequences(self, context: WorkerContext) -> SequencesOf:
        """Load the tokenizer, and the order of files if recordings continue from one to the next."""
        tokenizer = self._load_tokenizer()
        tokens = TokenIds.of(self.vocabulary, tokenizer, self.settings.end_of_sequence)
        by_recording = any(template.document == "recording" for template in self.templates.values())
        neighbours = Neighbours(context.load_plan()) if by_recording else None
        return partial(self._sequences, Loaded(tokenizer, tokens, neighbours))

    def task_of(self, dataset: str) -> str:
        """Name of the template of a dataset's documents."""
        return (
            self.settings.task_of_text(dataset) if dataset in self.sources.texts else self.settings.template_of(dataset)
        )

    def form_of(self, document: Document) -> str:
        """Pattern of a document, or the name of its template if it follows none."""
        return document.pattern or self.task_of(document.dataset)

    def _write_part(self, sequences_of: SequencesOf, unit: Unit, output: UnitOutput) -> None:
        def opened(folder: str, length: int | None) -> AbstractContextManager[Writer]:
            path = output.folder / folder / part_name(unit.number, "")
            path.parent.mkdir(exist_ok=True)
            return self.writer(path, self._metadata(unit_hash(header_of(self), unit), length))

        write_sequences(_observed(sequences_of(unit, output), output), self.settings.packings, opened)

    def _sequences(self, loaded: Loaded, unit: Unit, output: UnitOutput) -> Iterator[tuple[str, list[Document]]]:
        """Yield the sequences of a unit, each with the name of its folder."""
        return packed(self._kept(self._mixture(loaded, unit, output), output), self.settings.packings)

    def _kept(self, documents: Iterable[Document], output: UnitOutput) -> Iterator[Document]:
        """Count documents."""
        for document in documents:
            output.keep(document.dataset, document.seconds, len(document.ids))
            if document.n_truncated:
                cut = Unused("truncated_tokens", self.form_of(document), document.n_truncated, document.id)
                output.leave_unused(document.dataset, cut)
            yield document

    def _mixture(self, loaded: Loaded, unit: Unit, output: UnitOutput) -> Iterator[Document]:
        """Return the documents of a unit in their order, after a look at sources that must not be empty."""
        # Cached, since a builder may read the whole part to know the voices in it.
        builder_of = cache(partial(self._builder, loaded, unit))
        self._refuse_missing(loaded, unit, builder_of, output.folder)
        names = (*self.sources.tables, *self.sources.texts)
        streams: dict[str, Stream] = {
            name: partial(self._stream, loaded, name, unit, builder_of, output) for name in names
        }
        return mix(streams, self.settings.weights, self.settings.until)

    def _refuse_missing(self, loaded: Loaded, unit: Unit, builder_of: BuilderOf, folder: Path) -> None:
        """Raise `LastingUnitError` if a weighted dataset has no document in the unit."""
        for name in self.settings.weights or ():
            with TemporaryDirectory(dir=folder) as trial:
                output = UnitOutput(unit, Path(trial))
                if next(self._documents(loaded, name, unit, builder_of, output), None) is not None:
                    continue
                first = output.first_reject
            reason = "" if first is None else f" ({first.source}: {first.message.rstrip('.')})"
            raise LastingUnitError(
                f"Part {unit.number} has no document of the source {name}{reason}, so its weight cannot be"
                " kept; export to another folder, with larger parts (--part-megabytes) or without this source."
            )

    @abstractmethod
    def writer(self, path: Path, metadata: SequencesMetadata) -> AbstractContextManager[Writer]:
        """Open the writer of a part; `path` has no suffix yet."""

    def _metadata(self, hash_of_unit: str, length: int | None) -> SequencesMetadata:
        """Describe the ids of a part with sequences of a length."""
        vocabulary, metadata = self.vocabulary, self.sources.metadata
        return SequencesMetadata(
            codec_name=metadata.codec_name,
            codec_fingerprint=metadata.codec_fingerprint,
            dtype=metadata.dtype,
            device=metadata.device,
            mixed=arithmetic_of(metadata),
            offset=vocabulary.offset,
            codebook_size=vocabulary.codebook_size,
            n_groups=vocabulary.n_groups,
            n_residuals=vocabulary.n_residuals,
            vocabulary_end=self.vocabulary_end,
            end_of_sequence=self.end_of_sequence,
            tokenizer=self._tokenizer_fingerprint,
            length=length,
            unit_hash=hash_of_unit,
            layout=LayoutRecord.unless_default(vocabulary.layout, with_definition=False),
            loss=self.settings.loss,
        )

    def _stream(
        self, loaded: Loaded, name: str, unit: Unit, builder_of: BuilderOf, output: UnitOutput, again: bool
    ) -> Iterator[Document]:
        """Yield the documents of a dataset; rows are counted the first time only."""
        return self._documents(loaded, name, unit, builder_of, None if again else output)

    def _documents(
        self, loaded: Loaded, name: str, unit: Unit, builder_of: BuilderOf, output: UnitOutput | None
    ) -> Iterator[Document]:
        """Yield the documents of a dataset, and count rows and rejects in `output`."""
        sources, builder = _sources_of(name, unit), builder_of(name)
        make = _of_texts if name in self.sources.texts else partial(self._of_rows, loaded.neighbours)
        documents = (document for source in sources for document in make(builder, source, name, output))
        # Before mixing, so that shares count the documents that are written.
        return fit(documents, self.settings.packing, partial(self._reject, output))

    def _reject(self, output: UnitOutput | None, document: Document, reason: Literal["too_long", "filtered"]) -> None:
        if output is None:
            return
        message = "Nothing in it is learned." if reason == "filtered" else self.too_long.format(len(document.ids))
        output.reject(Reject(document.dataset, document.id, 0.0, document.seconds, "export", reason, message))

    def _builder(self, loaded: Loaded, unit: Unit, name: str) -> DocumentBuilder:
        template = self.templates[name]
        voice = self._voice(_sources_of(name, unit)) if template.has_voice else None
        return make_builder(
            template, loaded.tokens, loaded.tokenizer, voice, self.settings.loss, self.settings.seed or 0
        )

    def _voice(self, sources: Sequence[Source]) -> Voice:
        """Return the voice for the rows of `sources`."""
        if self._voice_row is not None:
            return same_voice(self._voice_row)
        metadata = self.sources.metadata
        rows = (row for source in sources for row in token_rows(source, metadata))
        return voices_of_speakers(rows, metadata.code_type)

    def _of_rows(
        self,
        neighbours: Neighbours | None,
        builder: DocumentBuilder,
        source: Source,
        name: str,
        output: UnitOutput | None,
    ) -> Iterator[Document]:
        metadata = self.sources.metadata
        length, on_missing = self.settings.packing.length, partial(_reject_missing, output, name)
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
            yield from builder.of_rows(_counted(rows, name, output), name, length, on_missing)

    def _load_tokenizer(self) -> TextTokenizer | None:
        return None if self.settings.tokenizer is None else TextTokenizer(Path(self.settings.tokenizer))


@dataclass(frozen=True)
class Loaded:
    """State that all units of a worker share; `neighbours` is None if no document is a whole recording."""

    tokenizer: TextTokenizer | None
    tokens: TokenIds
    neighbours: Neighbours | None


class SequencesJob(DocumentJob):
    """Writes sequences as Parquet."""

    verb = "export sequences"
    verifier = SequencesVerifier
    output_bytes_per_second = 250.0
    output_factor_of_loss = 2.0

    def writer(self, path: Path, metadata: SequencesMetadata) -> AbstractContextManager[Writer]:
        """Open the writer of `part-NNNNNN.parquet`."""
        return SequenceWriter(path.with_suffix(".parquet"), metadata)


class MegatronJob(DocumentJob):
    """Writes sequences as Megatron's indexed datasets, one prefix per part."""

    verb = "export megatron"
    # 6: a list of the documents beside each prefix. 7: it describes the ids, and names conversations.
    bytes_version = 7
    verifier = MegatronVerifier
    output_bytes_per_second = 400.0
    output_factor_of_loss = 1.25

    def writer(self, path: Path, metadata: SequencesMetadata) -> AbstractContextManager[Writer]:
        """Open the writer of `part-NNNNNN.bin`, its index `.idx`, its documents `.parquet`, and its loss mask."""
        return SidecarWriter(path, self.largest_id + 1, metadata)

    @property
    def reporter(self) -> JobReporter:
        """Writes `data-paths.txt`, and advises if much was too long."""
        return MegatronReporter(self)


def _templates(settings: DocumentOptions, sources: ExportSources) -> dict[str, Template | PatternTemplate]:
    """Load the template of each dataset."""
    templates = {name: load_template(settings.template_of(name)) for name in sources.tables}
    by_pattern = {name: one for name, one in templates.items() if isinstance(one, PatternTemplate)}
    unused = {"--switch-token": settings.switch, "--seed": settings.seed}
    for option, value in {} if by_pattern else unused.items():
        if value is not None:
            raise InputError(f"{option} is for patterns such as --task ATAT; leave it out.")
    if settings.switch is not None:
        own = next((name for name, one in by_pattern.items() if one.to_text or one.to_audio), None)
        if own is not None or settings.switch == END_OF_SEQUENCE:
            reason = f"the template of {own} says it (`to_text`, `to_audio`)" if own else "eos ends documents"
            raise InputError(f"--switch-token cannot be {settings.switch} here: {reason}; leave it out.")
        templates |= {name: template.with_switch(settings.switch) for name, template in by_pattern.items()}
    for name in sources.texts:
        templates[name] = load_template(settings.task_of_text(name))
        if any(isinstance(item, CodesItem) for item in templates[name].items):
            raise InputError(f"The template of {name} has codes, but {name} is text; give one with text and tokens.")
    return templates


def _observed(
    sequences: Iterable[tuple[str, list[Document]]], output: UnitOutput
) -> Iterator[tuple[str, list[Document]]]:
    """Count the lengths of sequences."""
    for folder, sequence in sequences:
        output.observe("sequence", sum(len(document.ids) for document in sequence) // HISTOGRAM_STEP)
        yield folder, sequence


def _sources_of(name: str, unit: Unit) -> list[Source]:
    return [source for source in unit.sources if source.dataset == name]


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
        output.reject(Reject(name, row.id, row.start, row.duration, "export", "filtered", str(error)))


def _counted(rows: Iterable[TokenRow], name: str, output: UnitOutput | None) -> Iterator[TokenRow]:
    for row in rows:
        if output is not None:
            output.read(name, row.duration)
        yield row
