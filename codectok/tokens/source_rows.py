"""Rows of token tables as sources of exports, by ranges of their files (see `codectok.sources.row_ranges`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import pyarrow.compute as pc
import pyarrow.parquet as pq

from codectok.sources.opening import open_parquet
from codectok.sources.row_ranges import batches_between, rows_in_range
from codectok.sources.source import Source

from .code_rows import CodeRows, code_rows_of_batch
from .mixing import refuse_uncovered
from .table import TableMetadata, TokenRow, metadata_of_schema, rows_of_batch, table_schema
from .table_checks import check_columns


def table_metadata(source: Source) -> TableMetadata:
    """Read the metadata of a token table's file.

    Raises:
        InputError: the file is not part of a token table.
    """
    with open_parquet(source) as file:
        return metadata_of_schema(file.schema_arrow, source.where)


def token_rows(source: Source, metadata: TableMetadata) -> Iterator[TokenRow]:
    """Yield the rows that begin in a range of a token table's file.

    Raises:
        InputError: the file is damaged, is not part of a token table, or has another codec, arithmetic or device than
            `metadata` names.
    """
    with open_parquet(source) as file:
        check_metadata(file, source, metadata)
        wanted = rows_in_range(source, file.metadata.num_rows)
        for _, row in _rows_from(file, source.where, wanted.start, wanted.stop, metadata):
            yield row


def code_rows(source: Source, metadata: TableMetadata, columns: Sequence[str] | None) -> Iterator[CodeRows]:
    """Yield the rows that `token_rows` yields in batches, with their codes and some or all other columns.

    Raises the same errors, but for columns that are not read.
    """
    names = table_schema(metadata).names if columns is None else [*columns, "codes"]
    with open_parquet(source) as file:
        check_metadata(file, source, metadata)
        wanted = rows_in_range(source, file.metadata.num_rows)
        for _, batch in batches_between(file, wanted.start, wanted.stop, names):
            yield code_rows_of_batch(batch, metadata, source.where)


def row_by_id(source: Source, metadata: TableMetadata, row_id: str) -> TokenRow | None:
    """The row with an id in a token table's file, or None; only ids are read of the other rows."""
    with open_parquet(source) as file:
        check_metadata(file, source, metadata)
        for first, batch in batches_between(file, 0, file.metadata.num_rows, ["id"]):
            place = pc.index(batch["id"], row_id).as_py()
            if place >= 0:
                return next(_rows_from(file, source.where, first + place, first + place + 1, metadata))[1]
    return None


def recordings_in(
    source: Source, metadata: TableMetadata, before: Iterable[Source] = (), after: Iterable[Source] = ()
) -> Iterator[Iterator[TokenRow]]:
    """Yield the rows of each recording whose first row begins in a range of a token table's file.

    Args:
        source: the range.
        metadata: of the table.
        before: files of the table before this one, the nearest first; recordings that begin there are left out.
        after: files behind this one, in which the last recording may continue.
    """
    with open_parquet(source) as file:
        check_metadata(file, source, metadata)
        n_rows = file.metadata.num_rows
        wanted = rows_in_range(source, n_rows)
        if not wanted:
            return
        rows = itertools.chain(
            _rows_from(file, source.where, max(0, wanted.start - 1), n_rows, metadata),
            ((n_rows, row) for other in after for row in token_rows(other, metadata)),
        )
        continued = _last_recording(before) if wanted.start == 0 else None
        groups = itertools.groupby(rows, key=lambda numbered: (numbered[1].dataset, numbered[1].source))
        for recording, group in groups:
            number, first = next(group)
            if number >= wanted.stop:
                return
            if number in wanted and not (number == 0 and recording == continued):
                yield itertools.chain([first], (row for _, row in group))


def _last_recording(files: Iterable[Source]) -> tuple[str, str] | None:
    """Dataset and source of the last row in the first of `files` that has rows."""
    for source in files:
        with open_parquet(source) as file:
            n_rows = file.metadata.num_rows
            for _, batch in batches_between(file, n_rows - 1, n_rows, ["dataset", "source"]):
                row = batch.to_pylist()[0]
                return row["dataset"], row["source"]
    return None


def check_metadata(file: pq.ParquetFile, source: Source, metadata: TableMetadata) -> None:
    """Raise an `InputError` if an opened file is not part of the token table that `metadata` describes."""
    found = metadata_of_schema(file.schema_arrow, source.where)
    check_columns(file.schema_arrow, table_schema(metadata), source.where)
    refuse_uncovered(metadata, source.where, found)


def _rows_from(
    file: pq.ParquetFile, where: str, start: int, stop: int, metadata: TableMetadata
) -> Iterator[tuple[int, TokenRow]]:
    # By name: users may have added columns.
    for first, batch in batches_between(file, start, stop, table_schema(metadata).names):
        yield from enumerate(rows_of_batch(batch, metadata, where), start=first)
