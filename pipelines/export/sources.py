"""Sources of an export: token tables, and texts beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from codectok.errors import InputError
from codectok.sources.kinds import Kind, kind_of
from codectok.sources.listing.arguments import Argument, parse_arguments
from codectok.sources.listing.ordering import ordered_sources
from codectok.sources.listing.sources import Reads, list_sources
from codectok.sources.source import Source
from codectok.storage import is_url
from codectok.tokens.mixing import arithmetic_of, merge_metadata
from codectok.tokens.source_rows import row_by_id, table_metadata
from codectok.tokens.table import TableMetadata, TokenRow

TABLE_KINDS: tuple[Kind, ...] = ("parquet",)
EXPORT_KINDS: tuple[Kind, ...] = ("parquet", "lines")
# Files whose metadata are read at a time.
READERS = 16
# Formats of text that are not supported: refused, since skipping them silently would lose a part of the corpus.
OTHER_TEXTS = (".json", ".ndjson", ".txt", ".csv", ".tsv", ".arrow", ".gz", ".zst", ".bz2", ".xz", ".zip")


@dataclass(frozen=True)
class ExportSources:
    """Sources of an export.

    Attributes:
        arguments: arguments for the engine, tables first.
        tables, texts: names of the datasets, in order.
        metadata: metadata of the codes in the tables and in `beside`, see `codectok.tokens.mixing.merge_metadata`.
    """

    arguments: tuple[str, ...]
    tables: tuple[str, ...]
    texts: tuple[str, ...]
    metadata: TableMetadata

    @classmethod
    def of(
        cls, tables: Sequence[str], texts: Sequence[str] = (), allow_mixed: bool = False, beside: Sequence[str] = ()
    ) -> ExportSources:
        """Open the sources that the command line names.

        Args:
            tables, texts: token tables and text sources; `NAME=SOURCE` names one.
            allow_mixed: accept codes of one codec that were computed differently.
            beside: tables of which single rows are used.

        Raises:
            InputError: a source does not exist, tables are of different codecs or mixed, or a table and a text share a
                name.
        """
        _refuse_texts(tables, "pass it to `export sequences` or `export megatron` with --text")
        _refuse_texts(beside, "give the folder of a table")
        table_names = _names(tables)
        text_names = _names(texts)
        both = sorted(set(table_names) & set(text_names))
        if both:
            raise InputError(
                f"A table and a text source are both named {both[0]!r}; name one of them, as in text=SOURCE."
            )
        metadata = merge_metadata(_described([*tables, *beside]), allow_mixed)
        for text in texts:
            first_file(text, EXPORT_KINDS, _reads_text)  # raises InputError for a text source without readable files
        return cls((*tables, *texts), table_names, text_names, metadata)

    def options(self) -> dict[str, JsonValue]:
        """Codec, arithmetic and device of the codes, as the plan of an export stores them."""
        metadata = self.metadata
        mixed: dict[str, list[JsonValue]] = {field: [*values] for field, values in arithmetic_of(metadata).items()}
        return {
            "codec": metadata.codec_fingerprint,
            "dtype": metadata.dtype,
            "device": metadata.device,
            **({"mixed": {**mixed}} if mixed else {}),
        }

    def reads(self, argument: Argument, path: str, kind: Kind | None) -> bool:
        """Return True if a file of a table or text is read."""
        return (_reads_table if argument.dataset in self.tables else _reads_text)(argument, path, kind)


def files_of_tables(tables: Sequence[str]) -> dict[str, list[Source]]:
    """List the files of each table by name, in order; raise `InputError` if a table has none."""
    found: dict[str, list[Source]] = {}
    for source in (source for table in tables for source in _files(table)):
        found.setdefault(source.dataset, []).append(source)
    parse_arguments(tables, TABLE_KINDS)  # raises InputError for two tables of one name
    return found


def table_of_row(row_id: str) -> str | None:
    """Return the table that `TABLE#ID` names; None for the id of a row in the tables of an export."""
    other, separator, _ = row_id.partition("#")
    return other if separator and other and (is_url(other) or Path(other).exists()) else None


def find_row(tables: Sequence[str], metadata: TableMetadata, row_id: str) -> TokenRow:
    """Find a row by id in the tables, or by `TABLE#ID` in another table; reads ids until it is found.

    Raises:
        InputError: there is no such row.
    """
    other = table_of_row(row_id)
    if other is not None:
        tables, row_id = [other], row_id.partition("#")[2]
    for table in tables:
        for source in _files(table):
            row = row_by_id(source, metadata, row_id)
            if row is not None:
                return row
    raise InputError(f"There is no row {row_id} in {', '.join(tables)}.")


def _described(tables: Sequence[str]) -> list[tuple[str, TableMetadata]]:
    """Read the metadata of all files, several at a time, since each takes a round trip to a store.

    Raises:
        InputError: the first file of a table is not part of one. Other such files fail in their units.
    """
    found = []
    with ThreadPoolExecutor(READERS) as pool:
        for table in tables:
            first, *others = _files(table)
            found.append((first.where, table_metadata(first)))
            found += [described for described in pool.map(_described_file, others) if described is not None]
    return found


def _described_file(source: Source) -> tuple[str, TableMetadata] | None:
    try:
        return source.where, table_metadata(source)
    except InputError:
        return None  # damaged or changed: other units can still be made


def _refuse_texts(tables: Sequence[str], remedy: str) -> None:
    for argument in parse_arguments(tables, EXPORT_KINDS)[0]:
        if argument.kind == "file" and kind_of(argument.pattern) == "lines":
            raise InputError(f"{argument.pattern} is text, not a token table; {remedy}.")


def _names(arguments: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(argument.dataset for argument in parse_arguments(arguments, EXPORT_KINDS)[0]))


def _reads_table(argument: Argument, path: str, kind: Kind | None) -> bool:
    """Parquet files directly in a folder are read, as in `codectok.tokens.table.table_files`."""
    return kind == "parquet" and not (argument.kind == "folder" and "/" in path)


def _reads_text(argument: Argument, path: str, kind: Kind | None) -> bool:
    if kind not in EXPORT_KINDS and path.lower().endswith(OTHER_TEXTS):
        raise InputError(
            f"The text source {argument.dataset} has {path}, which is neither JSON lines (.jsonl) nor Parquet; convert"
            f" it, or name the files to read by a pattern, as in '{argument.dataset}=FOLDER/*.jsonl'."
        )
    return kind in EXPORT_KINDS


def first_file(argument: str, kinds: tuple[Kind, ...] = TABLE_KINDS, reads: Reads = _reads_table) -> Source:
    """Return the first file of a table or text; raise `InputError` if there is none."""
    return next(_files(argument, kinds, reads))


def _files(argument: str, kinds: tuple[Kind, ...] = TABLE_KINDS, reads: Reads = _reads_table) -> Iterator[Source]:
    return ordered_sources(list_sources(*parse_arguments([argument], EXPORT_KINDS), kinds, reads=reads))
