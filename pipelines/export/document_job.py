"""Base of the exports of documents: mixes, packs, counts and writes them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import JsonValue

from codectok.exports.choices import TooLong
from codectok.exports.sequences.documents import Document
from codectok.exports.sequences.mixing import Stream, mix
from codectok.exports.sequences.packing import fit
from codectok.exports.sequences.parquet import SequencesMetadata
from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenIds
from codectok.pipelines.engine.faults import LastingUnitError
from codectok.pipelines.engine.job import JobReporter, RunUnit, WorkerContext
from codectok.pipelines.engine.output.folder import unit_hash
from codectok.pipelines.engine.output.unit_files import part_name
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.cutting import CuttingPolicy
from codectok.pipelines.engine.planning.store import header_of
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.unused import Unused
from codectok.tokens.layouts.record import LayoutRecord
from codectok.tokens.mixing import arithmetic_of
from codectok.tokens.vocabulary import Vocabulary

from .export_job import ExportJob
from .options import DocumentOptions
from .rejected import RejectedDocument
from .reports import DocumentReporter
from .sources import EXPORT_KINDS, ExportSources
from .writing import Writer, packed, write_sequences

HISTOGRAM_STEP = 100

DocumentsOf = Callable[[str, UnitOutput | None], Iterator[Document]]
"""Yields a unit's documents of a dataset, and counts rows and rejects in the output if one is given."""

ReadUnit = Callable[[Unit], DocumentsOf]
"""Opens a unit to read its documents."""

SequencesOf = Callable[[Unit, UnitOutput], Iterator[tuple[str, list[Document]]]]
"""Yields the sequences of a unit, each with the name of its folder, and counts documents and rejects in the output."""


class DocumentJob(ExportJob):
    """Mixes, packs and writes documents; subclasses make the documents and choose the output format.

    Attributes:
        output_factor_of_loss: output with labels or a loss mask, over that without.
        too_long: message for a document that is left out, with a place for the number of its tokens.
        text_name: name of the rows of sources that are no tables.
        remedy: value of `--too-long` that keeps documents that are too long.
    """

    output_factor_of_loss: float
    too_long: str = "The document has {} tokens, more than a sequence."
    text_name = "texts"
    remedy = TooLong.SPLIT
    kinds = EXPORT_KINDS
    code_name = "tokens"

    def __init__(self, settings: DocumentOptions, sources: ExportSources) -> None:
        self.settings, self.sources = settings, sources
        if settings.loss is not None:
            self.output_bytes_per_second *= self.output_factor_of_loss
        settings.check_names([*sources.tables, *sources.texts])
        self.vocabulary = Vocabulary.for_codec(sources.metadata, settings.offset, settings.layout)

    def describe_ids(self, tokens: TokenIds, tokenizer: TextTokenizer | None) -> None:
        """Set the attributes that describe the ids of the output."""
        self.end_of_sequence = tokens.end_of_sequence
        self.vocabulary_end = self.vocabulary.end_with(tokens.special_tokens.values())
        self.largest_id = max(self.vocabulary_end - 1, self.end_of_sequence or 0, *tokens.known.values())
        self._tokenizer_fingerprint = tokenizer.fingerprint if tokenizer else None

    @abstractmethod
    def start_reading(self, context: WorkerContext) -> ReadUnit:
        """Load what all units share, and return the function that opens a unit to read its documents."""

    @abstractmethod
    def writer(self, path: Path, metadata: SequencesMetadata) -> AbstractContextManager[Writer]:
        """Open the writer of a part; `path` has no suffix yet."""

    @abstractmethod
    def task_of(self, dataset: str) -> str:
        """Name of the template of a dataset's documents."""

    @abstractmethod
    def fitting_seconds(self, dataset: str) -> float:
        """Duration of audio that fits into a sequence; 0 if it cannot be cut because text belongs to it."""

    def options(self) -> Mapping[str, JsonValue]:
        """Options that decide ids and their order."""
        settings = self.settings
        layout = LayoutRecord.unless_default(settings.layout)
        return {
            **self.sources.options(),
            **({} if layout is None else {"layout": f"{layout.name} {layout.sha256}"}),
            "offset": settings.offset,
            "texts": list(self.sources.texts),
            "tokenizer": self._tokenizer_fingerprint,
            "eos": self.end_of_sequence,
            "weights": None if settings.weights is None else dict(settings.weights),
            "until": settings.until if settings.weights else None,
            "part_megabytes": settings.part_megabytes,
            **asdict(settings.packing),
            **({"shorter_lengths": sorted(settings.shorter_lengths)} if settings.shorter_lengths else {}),
        }

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
        """Load what all units share, and return the function that yields the sequences of a unit."""
        return partial(self._sequences, self.start_reading(context))

    def form_of(self, document: Document | RejectedDocument) -> str:
        """Pattern of a document, or the name of its template if it follows none."""
        return document.pattern or self.task_of(document.dataset)

    def _write_part(self, sequences_of: SequencesOf, unit: Unit, output: UnitOutput) -> None:
        def opened(folder: str, length: int | None) -> AbstractContextManager[Writer]:
            path = output.folder / folder / part_name(unit.number, "")
            path.parent.mkdir(exist_ok=True)
            return self.writer(path, self._metadata(unit_hash(header_of(self), unit), length))

        write_sequences(_observed(sequences_of(unit, output), output), self.settings.packings, opened)

    def _sequences(self, read_unit: ReadUnit, unit: Unit, output: UnitOutput) -> Iterator[tuple[str, list[Document]]]:
        """Yield the sequences of a unit, each with the name of its folder."""
        documents_of = partial(self._fitting, read_unit(unit))
        self._refuse_missing(documents_of, unit, output.folder)
        streams: dict[str, Stream] = {
            name: partial(_stream, documents_of, name, output) for name in (*self.sources.tables, *self.sources.texts)
        }
        mixture = mix(streams, self.settings.weights, self.settings.until)
        return packed(self._kept(mixture, output), self.settings.packings)

    def _fitting(self, documents_of: DocumentsOf, name: str, output: UnitOutput | None) -> Iterator[Document]:
        """Yield the documents of a dataset, those that are too long dropped, cut or split.

        This comes before mixing, so that shares count the documents that are written.
        """
        return fit(documents_of(name, output), self.settings.packing, partial(self._reject, output))

    def _reject(self, output: UnitOutput | None, document: Document, reason: Literal["too_long", "filtered"]) -> None:
        if output is None:
            return
        message = "Nothing in it is learned." if reason == "filtered" else self.too_long.format(len(document.ids))
        span = (document.dataset, document.id, 0.0, document.seconds)
        output.reject(RejectedDocument(*span, "export", reason, message, document.pattern))

    def _kept(self, documents: Iterable[Document], output: UnitOutput) -> Iterator[Document]:
        """Count documents."""
        for document in documents:
            output.keep(document.dataset, document.seconds, len(document.ids))
            if document.n_truncated:
                cut = Unused("truncated_tokens", self.form_of(document), document.n_truncated, document.id)
                output.leave_unused(document.dataset, cut)
            yield document

    def _refuse_missing(self, documents_of: DocumentsOf, unit: Unit, folder: Path) -> None:
        """Raise `LastingUnitError` if a weighted dataset has no document in the unit."""
        for name in self.settings.weights or ():
            with TemporaryDirectory(dir=folder) as trial:
                output = UnitOutput(unit, Path(trial))
                if next(documents_of(name, output), None) is not None:
                    continue
                first = output.first_reject
            reason = "" if first is None else f" ({first.source}: {first.message.rstrip('.')})"
            raise LastingUnitError(
                f"Part {unit.number} has no document of the source {name}{reason}, so its weight cannot be"
                " kept; export to another folder, with larger parts (--part-megabytes) or without this source."
            )

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


def _stream(documents_of: DocumentsOf, name: str, output: UnitOutput, again: bool) -> Iterator[Document]:
    """Yield the documents of a dataset; rows are counted the first time only."""
    return documents_of(name, None if again else output)


def _observed(
    sequences: Iterable[tuple[str, list[Document]]], output: UnitOutput
) -> Iterator[tuple[str, list[Document]]]:
    """Count the lengths of sequences."""
    for folder, sequence in sequences:
        output.observe("sequence", sum(len(document.ids) for document in sequence) // HISTOGRAM_STEP)
        yield folder, sequence
