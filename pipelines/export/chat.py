"""`export chat`: conversations, joined with the audio that they name, as data for instruction tuning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from codectok.errors import InputError
from codectok.exports.chat.conversations import ConversationError
from codectok.exports.chat.documents import ChatBuilder
from codectok.exports.chat.reading import ConversationRow, conversation_rows
from codectok.exports.chat.templates import OF_TOKENIZER, load_conversation_template
from codectok.exports.choices import AudioKey, Loss, TooLong, check_choice
from codectok.exports.sequences.documents import Document
from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenIds
from codectok.pipelines.engine.job import WorkerContext
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.rejects import Reject
from codectok.sources.source import Source
from codectok.tokens.row_index import RowIndex, fingerprint_of_tables

from .document_job import DocumentJob, DocumentsOf, ReadUnit
from .formats import WritesMegatron, WritesSequences
from .options import DocumentOptions
from .sources import ExportSources, files_of_tables

# Codes of a source that are in memory at a time, beside those of one conversation.
HELD_CODES = 1 << 26
HELD_CONVERSATIONS = 1 << 14


@dataclass(frozen=True)
class ChatOptions(DocumentOptions):
    """How conversations become documents, in addition to `DocumentOptions`.

    Attributes:
        chat_template: "tokenizer", "unitts" or a Jinja file.
        key: column of the tables by which conversations name audio.
        today: date that the template writes as today's; None if it writes none.
    """

    chat_template: str = OF_TOKENIZER
    key: AudioKey = AudioKey.ID
    today: date | None = None
    part_megabytes: float = 32.0
    loss: Loss | None = Loss.ANSWER

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.key, AudioKey)
        if self.tokenizer is None:
            raise InputError("Conversations need a tokenizer: pass --tokenizer with its folder.")
        if self.packing.too_long == TooLong.SPLIT:
            raise InputError("A conversation cannot be split; pass --too-long drop, truncate or keep.")


class ChatDocuments(DocumentJob):
    """Makes documents of conversations; subclasses choose the output format."""

    row_name = text_name = "conversations"
    remedy = TooLong.TRUNCATE
    too_long = "The conversation has {} tokens, more than a sequence, or than its answers fit into."
    settings: ChatOptions

    def __init__(self, settings: ChatOptions, conversations: Sequence[str], tables: Sequence[str]) -> None:
        if not tables:
            raise InputError("Conversations need the tokens of their audio: pass --tokens with a token table.")
        super().__init__(settings, ExportSources.of([], conversations, settings.allow_mixed, tables))
        self._tables = files_of_tables(tables)
        self._table_hashes = fingerprint_of_tables(self._tables)
        # Detect missing and unsuitable options here, not in a worker.
        reader = self._reader(self._index({}))
        self._template_label = reader.template_label
        self.describe_ids(reader.tokens, reader.tokenizer)

    def options(self) -> Mapping[str, JsonValue]:
        """Options that decide ids and their order, the tables among them."""
        return {
            **super().options(),
            "tables": dict(self._table_hashes),
            "key": self.settings.key,
            "template": self._template_label,
            "loss": self.settings.loss,
        }

    def task_of(self, dataset: str) -> str:
        """Name of the template."""
        return self.settings.chat_template

    def fitting_seconds(self, dataset: str) -> float:
        """Return 0, since text belongs to all audio."""
        return 0.0

    def start_reading(self, context: WorkerContext) -> ReadUnit:
        """Load the tokenizer and the index of the tables' rows."""
        return self._reader(self._index(self._tables)).open

    def _index(self, tables: Mapping[str, Sequence[Source]]) -> RowIndex:
        return RowIndex(tables, self.sources.metadata, "id" if self.settings.key == AudioKey.ID else "source")

    def _reader(self, index: RowIndex) -> ConversationReader:
        settings = self.settings
        tokenizer = TextTokenizer(Path(str(settings.tokenizer)))
        template = load_conversation_template(
            settings.chat_template, tokenizer.wrapped, tokenizer.folder, settings.today
        )
        tokens = TokenIds.of(self.vocabulary, tokenizer, settings.end_of_sequence)
        builder = ChatBuilder(template, tokenizer, tokens, self.sources.metadata.frame_rate)
        # With weights the first conversation of a source is read twice, to see that the source is not empty.
        held = 1 if settings.weights else HELD_CONVERSATIONS
        return ConversationReader(tokenizer, tokens, template.label, builder, index, held)


class ChatSequencesJob(WritesSequences, ChatDocuments):
    """Writes conversations as sequences in Parquet."""

    verb = "export chat"
    # 2: an empty list of a message does not hide that of the conversation; truncated ones count the audio that is left.
    # 3: ids have no dictionary.
    bytes_version = 3


class ChatMegatronJob(WritesMegatron, ChatDocuments):
    """Writes conversations as Megatron's indexed datasets."""

    verb = "export chat --format megatron"
    # 7: the list of documents describes the ids, and names conversations.
    bytes_version = 7


@dataclass(frozen=True)
class ConversationReader:
    """Makes documents of conversations; all units of a worker share one.

    Attributes:
        held: number of conversations that are joined with rows of the tables at a time, at first.
    """

    tokenizer: TextTokenizer
    tokens: TokenIds
    template_label: str
    builder: ChatBuilder
    index: RowIndex
    held: int

    def open(self, unit: Unit) -> DocumentsOf:
        """Open a unit to read its documents."""
        return partial(self._documents, unit)

    def _documents(self, unit: Unit, name: str, output: UnitOutput | None) -> Iterator[Document]:
        joined = _Joined(self.builder, self.index, name, output, self.held)
        for source in unit.sources_of(name):
            yield from joined.documents(source)


@dataclass
class _Joined:
    """Joins conversations with rows of the tables, some at a time: at first `held` of them."""

    builder: ChatBuilder
    index: RowIndex
    dataset: str
    output: UnitOutput | None
    held: int
    _waiting: list[ConversationRow] = field(default_factory=list)
    _codes: int = 0

    def documents(self, source: Source) -> Iterator[Document]:
        """Yield the documents of a range of a file, in order."""
        for row in conversation_rows(source):
            references = row.conversation.references if row.conversation is not None else []
            codes = sum(map(self.index.count_codes, references))
            if self._waiting and (self._codes + codes > HELD_CODES or len(self._waiting) >= self.held):
                yield from self._flush(source)
            self._waiting.append(row)
            self._codes += codes
        yield from self._flush(source)

    def _flush(self, source: Source) -> Iterator[Document]:
        waiting, self._waiting, self._codes, self.held = self._waiting, [], 0, HELD_CONVERSATIONS
        references = [one for row in waiting if row.conversation is not None for one in row.conversation.references]
        rows = self.index.find(references)
        for row in waiting:
            if self.output is not None:
                self.output.read(self.dataset)
            problem, reason = row.problem, row.reason
            if row.conversation is not None:
                try:
                    yield self.builder.build(row.conversation, rows, row.id, self.dataset, source.name)
                    continue
                except ConversationError as error:
                    problem = str(error)
            if self.output is not None:
                self.output.reject(Reject(self.dataset, row.id, 0.0, None, "export", reason, problem))
