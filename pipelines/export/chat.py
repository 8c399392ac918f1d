"""`export chat`: conversations, joined with the audio that they name, as data for instruction tuning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
from codectok.exports.sequences.packing import fit
from codectok.exports.sequences.text_tokenizer import TextTokenizer, TokenIds
from codectok.pipelines.engine.job import JobReporter, WorkerContext
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.rejects import Reject
from codectok.sources.source import Source
from codectok.tokens.layouts.record import LayoutRecord
from codectok.tokens.row_index import RowIndex, fingerprint_of_tables
from codectok.tokens.vocabulary import Vocabulary

from .documents import (
    BuilderOf,
    DocumentJob,
    Loaded,
    MegatronJob,
    SequencesJob,
    SequencesOf,
)
from .options import DocumentOptions
from .reports import DocumentReporter, MegatronReporter
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

    row_name = "conversations"
    too_long = "The conversation has {} tokens, more than a sequence, or than its answers fit into."
    settings: ChatOptions

    def __init__(self, settings: ChatOptions, conversations: Sequence[str], tables: Sequence[str]) -> None:
        self.settings = settings
        if not tables:
            raise InputError("Conversations need the tokens of their audio: pass --tokens with a token table.")
        self.sources = ExportSources.of([], conversations, settings.allow_mixed, tables)
        settings.check_names(self.sources.texts)
        self.vocabulary = Vocabulary.for_codec(self.sources.metadata, settings.offset, settings.layout)
        self.templates = {}
        self._tables = files_of_tables(tables)
        self._table_hashes = fingerprint_of_tables(self._tables)
        # Detect missing and unsuitable options here, not in a worker.
        loaded = self._load(self._index({}))
        self._describe(loaded.tokens, loaded.tokenizer)

    def options(self) -> Mapping[str, JsonValue]:
        """Options that decide ids and their order, the tables among them."""
        settings = self.settings
        layout = LayoutRecord.unless_default(settings.layout)
        return {
            **self.sources.options(),
            **({} if layout is None else {"layout": f"{layout.name} {layout.sha256}"}),
            "tables": dict(self._table_hashes),
            "key": settings.key,
            "offset": settings.offset,
            "template": self._label,
            "tokenizer": self._tokenizer_fingerprint,
            "eos": self.end_of_sequence,
            "loss": settings.loss,
            "texts": list(self.sources.texts),
            "weights": None if settings.weights is None else dict(settings.weights),
            "until": settings.until if settings.weights else None,
            "part_megabytes": settings.part_megabytes,
            **asdict(settings.packing),
            **({"shorter_lengths": sorted(settings.shorter_lengths)} if settings.shorter_lengths else {}),
        }

    def start_sequences(self, context: WorkerContext) -> SequencesOf:
        """Load the tokenizer and the index of the tables' rows."""
        return partial(self._sequences, self._load(self._index(self._tables)))

    def task_of(self, dataset: str) -> str:
        """Name of the template."""
        return self.settings.chat_template

    def _index(self, tables: Mapping[str, Sequence[Source]]) -> RowIndex:
        return RowIndex(tables, self.sources.metadata, "id" if self.settings.key == AudioKey.ID else "source")

    def _load(self, index: RowIndex) -> LoadedChat:
        settings = self.settings
        tokenizer = TextTokenizer(Path(str(settings.tokenizer)))
        template = load_conversation_template(
            settings.chat_template, tokenizer.wrapped, tokenizer.folder, settings.today
        )
        self._label = template.label
        tokens = TokenIds.of(self.vocabulary, tokenizer, settings.end_of_sequence)
        builder = ChatBuilder(template, tokenizer, tokens, self.sources.metadata.frame_rate)
        return LoadedChat(tokenizer, tokens, None, builder, index)

    def _documents(
        self, loaded: Loaded, name: str, unit: Unit, builder_of: BuilderOf, output: UnitOutput | None
    ) -> Iterator[Document]:
        assert isinstance(loaded, LoadedChat), "made by `_load`"
        # With weights the first conversation of a source is read twice, to see that the source is not empty.
        joined = _Joined(loaded, name, output, held=1 if self.settings.weights else HELD_CONVERSATIONS)
        documents = (
            document for source in unit.sources if source.dataset == name for document in joined.documents(source)
        )
        yield from fit(documents, self.settings.packing, partial(self._reject, output))


class ChatSequencesJob(ChatDocuments, SequencesJob):
    """Writes conversations as sequences in Parquet."""

    verb = "export chat"
    # 2: an empty list of a message does not hide that of the conversation; truncated ones count the audio that is left.
    bytes_version = 2

    @property
    def reporter(self) -> JobReporter:
        """Advises if much was too long."""
        return ChatReporter(self)


class ChatMegatronJob(ChatDocuments, MegatronJob):
    """Writes conversations as Megatron's indexed datasets."""

    verb = "export chat --format megatron"

    @property
    def reporter(self) -> JobReporter:
        """Writes `data-paths.txt`, and advises if much was too long."""
        return ChatMegatronReporter(self)


class ChatReporter(DocumentReporter):
    """Advises if many conversations were left out as too long."""

    texts, remedy = "conversations", "truncate"

    def _fitting_seconds(self, name: str) -> int:
        return 0  # there is text beside all audio


class ChatMegatronReporter(ChatReporter, MegatronReporter):
    """Writes the list of parts that Megatron reads, with the advice of `ChatReporter`."""


@dataclass(frozen=True)
class LoadedChat(Loaded):
    """State that all units of a worker share."""

    builder: ChatBuilder
    index: RowIndex


@dataclass
class _Joined:
    """Joins the conversations of a unit with rows of the tables, some at a time: at first `held` of them."""

    loaded: LoadedChat
    dataset: str
    output: UnitOutput | None
    held: int
    _waiting: list[ConversationRow] = field(default_factory=list)
    _codes: int = 0

    def documents(self, source: Source) -> Iterator[Document]:
        """Yield the documents of a range of a file, in order."""
        for row in conversation_rows(source):
            references = row.conversation.references if row.conversation is not None else []
            codes = sum(map(self.loaded.index.count_codes, references))
            if self._waiting and (self._codes + codes > HELD_CODES or len(self._waiting) >= self.held):
                yield from self._flush(source)
            self._waiting.append(row)
            self._codes += codes
        yield from self._flush(source)

    def _flush(self, source: Source) -> Iterator[Document]:
        waiting, self._waiting, self._codes, self.held = self._waiting, [], 0, HELD_CONVERSATIONS
        references = [one for row in waiting if row.conversation is not None for one in row.conversation.references]
        rows = self.loaded.index.find(references)
        for row in waiting:
            if self.output is not None:
                self.output.read(self.dataset)
            problem, reason = row.problem, row.reason
            if row.conversation is not None:
                try:
                    yield self.loaded.builder.build(row.conversation, rows, row.id, self.dataset, source.name)
                    continue
                except ConversationError as error:
                    problem = str(error)
            if self.output is not None:
                self.output.reject(Reject(self.dataset, row.id, 0.0, None, "export", reason, problem))
