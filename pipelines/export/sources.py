"""What an export reads: token tables, and texts beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from codectok.errors import InputError
from codectok.sources.arguments import Argument, parse_arguments
from codectok.sources.kinds import Kind, kind_of
from codectok.sources.listing import Reads, list_sources
from codectok.sources.ordering import ordered_sources
from codectok.sources.source import Source
from codectok.storage import is_url
from codectok.tokens.source_rows import row_by_id, table_metadata
from codectok.tokens.table import TableMetadata, TokenRow

TABLE_KINDS: tuple[Kind, ...] = ("parquet",)
EXPORT_KINDS: tuple[Kind, ...] = ("parquet", "lines")
# Files that hold texts and are not read: leaving them out would be half a corpus.
OTHER_TEXTS = (".json", ".ndjson", ".txt", ".csv", ".tsv", ".arrow", ".gz", ".zst", ".bz2", ".xz", ".zip")


@dataclass(frozen=True)
class ExportSources:
    """Sources of an export.

    Attributes:
        arguments: as the engine takes them, tables first.
        tables, texts: names of datasets, in order.
        metadata: of the codes in the tables.
    """

    arguments: tuple[str, ...]
    tables: tuple[str, ...]
    texts: tuple[str, ...]
    metadata: TableMetadata

    @classmethod
    def of(cls, tables: Sequence[str], texts: Sequence[str] = ()) -> ExportSources:
        """Look at what the command line names.

        Raises:
            InputError: sources that do not exist, tables of different codecs, or a name for a table and a text.
        """
        _refuse_texts(tables)
        table_names = _names(tables)
        text_names = _names(texts)
        both = sorted(set(table_names) & set(text_names))
        if both:
            raise InputError(
                f"A table and a text source are both named {both[0]!r}; name one of them, as in text=SOURCE."
            )
        found = [table_metadata(first_file(table)) for table in tables]
        for metadata in found:
            if metadata.codec_fingerprint != found[0].codec_fingerprint:
                raise InputError(
                    f"The tables hold codes of different codecs ({found[0].label} and {metadata.label});"
                    " export them apart."
                )
        for text in texts:
            first_file(text, EXPORT_KINDS, _reads_text)  # what holds nothing that can be read is no text
        return cls((*tables, *texts), table_names, text_names, found[0])

    def reads(self, argument: Argument, path: str, kind: Kind | None) -> bool:
        """Whether a file of a table or text is read."""
        return (_reads_table if argument.dataset in self.tables else _reads_text)(argument, path, kind)


def find_row(tables: Sequence[str], metadata: TableMetadata, row_id: str) -> TokenRow:
    """The row of that id in one of the tables, of `TABLE#ID` in another one; ids are read until it is found."""
    other, separator, rest = row_id.partition("#")
    if separator and other and (is_url(other) or Path(other).exists()):
        tables, row_id = [other], rest
    for table in tables:
        for source in _files(table):
            row = row_by_id(source, metadata, row_id)
            if row is not None:
                return row
    raise InputError(f"There is no row {row_id} in {', '.join(tables)}.")


def _refuse_texts(tables: Sequence[str]) -> None:
    for argument in parse_arguments(tables, EXPORT_KINDS)[0]:
        if argument.kind == "file" and kind_of(argument.pattern) == "lines":
            raise InputError(
                f"{argument.pattern} is text and no token table; `export sequences` and `export megatron` take it with"
                " --text."
            )


def _names(arguments: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(argument.dataset for argument in parse_arguments(arguments, EXPORT_KINDS)[0]))


def _reads_table(argument: Argument, path: str, kind: Kind | None) -> bool:
    """Parquet files that lie directly in a folder, as `codectok.tokens.table.table_files` finds them."""
    return kind == "parquet" and not (argument.kind == "folder" and "/" in path)


def _reads_text(argument: Argument, path: str, kind: Kind | None) -> bool:
    if kind not in EXPORT_KINDS and path.lower().endswith(OTHER_TEXTS):
        raise InputError(
            f"The text source {argument.dataset} has {path}, which is neither JSON lines (.jsonl) nor Parquet; convert"
            f" it, or say what is to be read by a pattern, as in '{argument.dataset}=FOLDER/*.jsonl'."
        )
    return kind in EXPORT_KINDS


def first_file(argument: str, kinds: tuple[Kind, ...] = TABLE_KINDS, reads: Reads = _reads_table) -> Source:
    """The first file that a table or text names; `InputError` if there is none."""
    return next(_files(argument, kinds, reads))


def _files(argument: str, kinds: tuple[Kind, ...] = TABLE_KINDS, reads: Reads = _reads_table) -> Iterator[Source]:
    return ordered_sources(list_sources(*parse_arguments([argument], EXPORT_KINDS), kinds, reads=reads))
