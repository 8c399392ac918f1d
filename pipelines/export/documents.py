"""`export sequences` and `export megatron`: documents of a language model from tables and texts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from codectok.errors import InputError
from codectok.exports.sequences.templates import PatternTemplate
from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenIds
from codectok.pipelines.engine.job import WorkerContext
from codectok.tokens.table import TokenRow

from .document_job import DocumentJob, ReadUnit
from .formats import WritesMegatron, WritesSequences
from .neighbours import Neighbours
from .options import DocumentOptions
from .row_reader import RowReader
from .sources import ExportSources, find_row, table_of_row
from .templates import describe_template, load_templates
from .voices import BY_SPEAKER


class RowDocuments(DocumentJob):
    """Makes documents of the rows of tables, and of texts beside them; subclasses choose the output format."""

    row_name = "documents"

    def __init__(self, settings: DocumentOptions, tables: Sequence[str], texts: Sequence[str] = ()) -> None:
        voices = [] if settings.voice is None else filter(None, [table_of_row(settings.voice)])
        super().__init__(settings, ExportSources.of(tables, texts, settings.allow_mixed, [*voices]))
        self.templates = load_templates(settings, self.sources)
        self._voice: TokenRow | None = None
        if settings.voice not in (None, BY_SPEAKER):
            self._voice = find_row(tables, self.sources.metadata, str(settings.voice))
        # Detect missing and unsuitable options here, not in a worker.
        reader = self._reader()
        for name in self.templates:
            reader.builder(name, ())
        if settings.voice is not None and not any(template.has_voice for template in self.templates.values()):
            raise InputError("A voice is given, but the template has none (`codes: voice`); --task tts has one.")
        self.describe_ids(reader.tokens, reader.tokenizer)

    def options(self) -> Mapping[str, JsonValue]:
        """Options that decide ids and their order, the templates among them."""
        settings, voice = self.settings, self._voice
        by_pattern = any(isinstance(template, PatternTemplate) for template in self.templates.values())
        hash_of_voice = "" if voice is None else hashlib.sha256(voice.codes.tobytes()).hexdigest()[:16]
        return {
            **super().options(),
            "task": {name: describe_template(one, settings.loss) for name, one in sorted(self.templates.items())},
            **({} if settings.loss is None else {"loss": settings.loss}),
            **({"seed": settings.seed or 0} if by_pattern else {}),
            "voice": settings.voice if voice is None else f"{voice.id} {hash_of_voice}",
        }

    def task_of(self, dataset: str) -> str:
        """Name of the template of a dataset's documents."""
        if dataset in self.sources.texts:
            return self.settings.task_of_text(dataset)
        return self.settings.template_of(dataset)

    def fitting_seconds(self, dataset: str) -> float:
        """Duration of audio that fits into a sequence; 0 if it cannot be cut because text belongs to it."""
        template, metadata = self.templates[dataset], self.sources.metadata
        if template.has_text or template.has_voice or not template.has_codes:
            return 0.0
        room = (self.settings.packing.length or 0) - template.n_tokens
        return max(0.0, room / (metadata.frame_rate * metadata.n_codebooks))

    def start_reading(self, context: WorkerContext) -> ReadUnit:
        """Load the tokenizer, and the order of files if recordings continue from one to the next."""
        reader = self._reader()
        if any(template.document == "recording" for template in self.templates.values()):
            reader = replace(reader, neighbours=Neighbours(context.load_plan()))
        return reader.open

    def _reader(self) -> RowReader:
        settings = self.settings
        tokenizer = None if settings.tokenizer is None else TextTokenizer(Path(settings.tokenizer))
        tokens = TokenIds.of(self.vocabulary, tokenizer, settings.end_of_sequence)
        metadata, texts = self.sources.metadata, self.sources.texts
        return RowReader(settings, self.templates, metadata, texts, tokenizer, tokens, self._voice)


class SequencesJob(WritesSequences, RowDocuments):
    """Writes rows and texts as sequences in Parquet."""

    verb = "export sequences"
    # 2: recordings continue in the next file, strings of tokens are text. 3: a vocabulary ends behind special tokens
    # that a tokenizer has elsewhere, texts that are null are `filtered`. 4: files record mixed arithmetic. 6: a switch
    # token also stands in a row left alone, and an end that closes the audio of a pattern is learned with it; pieces in
    # which nothing is learned are `filtered`, and cut documents have the seconds of their codes. 7: ids have no
    # dictionary.
    bytes_version = 7


class MegatronJob(WritesMegatron, RowDocuments):
    """Writes rows and texts as Megatron's indexed datasets."""

    verb = "export megatron"
    # As above; 6 also has a list of the documents beside each prefix. 7: it describes the ids.
    bytes_version = 7
