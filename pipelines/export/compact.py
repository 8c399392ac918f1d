"""`export compact`: merges the files of a token table into larger ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import pyarrow as pa
from pydantic import JsonValue

from codectok.errors import InputError
from codectok.exports.compact import MEGABYTE, write_compact
from codectok.pipelines.engine.job import Job
from codectok.pipelines.engine.output.folder import unit_hash
from codectok.pipelines.engine.output.unit_files import part_name
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.cutting import TABLE_BYTES_PER_SECOND, CuttingPolicy
from codectok.pipelines.engine.planning.store import header_of
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.kinds import Kind
from codectok.sources.listing.arguments import Argument
from codectok.sources.opening import open_parquet
from codectok.sources.source import Source
from codectok.tokens.source_rows import table_metadata
from codectok.tokens.table import TableMetadata, columns_of_users, metadata_of_schema, types_of

from .sources import TABLE_KINDS, ExportSources, first_file
from .verify_compact import CompactVerifier


@dataclass(frozen=True)
class CompactOptions:
    """Sizes of files and row groups.

    Attributes:
        file_megabytes: MB of the table's files to merge into one; larger files are not cut.
        group_megabytes: least MB of codes in a row group.
    """

    file_megabytes: float = 256.0
    group_megabytes: float = 32.0

    def __post_init__(self) -> None:
        if not 0 < self.group_megabytes <= self.file_megabytes < math.inf:
            raise InputError(
                f"Row groups of {self.group_megabytes:g} MB in files of {self.file_megabytes:g} MB are impossible;"
                " give sizes above 0, with groups not larger than files."
            )


class CompactJob(Job):
    """Writes the rows of a token table, in the same order, to fewer files `part-NNNNNN.parquet`."""

    verb = "export compact"
    row_name = "rows"
    kinds = TABLE_KINDS
    verifier = CompactVerifier
    output_bytes_per_second = TABLE_BYTES_PER_SECOND

    def __init__(self, settings: CompactOptions, table: str) -> None:
        self.settings = settings
        self.sources = ExportSources.of([table])
        with open_parquet(first_file(table)) as file:
            more = columns_of_users(file.schema_arrow, self.sources.metadata)
        # Sorted, so that the order does not depend on the first file.
        self.more = sorted(more, key=lambda field: field.name)

    def options(self) -> Mapping[str, JsonValue]:
        """Options that decide the output, and the settings that all codes of the table share."""
        metadata = self.sources.metadata
        return {
            "codec": metadata.codec_fingerprint,
            "dtype": metadata.dtype,
            "device": metadata.device,
            "pack_frames": None if metadata.device == "cpu" else metadata.pack_frames,
            **({"columns": types_of(self.more)} if self.more else {}),
            **asdict(self.settings),
        }

    @property
    def cutting(self) -> CuttingPolicy:
        """Units of whole files of the table."""
        unit_bytes = self.settings.file_megabytes * MEGABYTE
        return CuttingPolicy(unit_bytes=unit_bytes, whole_files=True)

    def reads(self, argument: Argument, path: str, kind: Kind | None) -> bool:
        """Read the same files as other readers of a table."""
        return self.sources.reads(argument, path, kind)

    def run(self, unit: Unit, output: UnitOutput) -> None:
        """Write `part-NNNNNN.parquet`."""
        # Of the unit's first file: the first file of the table may change as the table grows.
        first = table_metadata(unit.sources[0])
        metadata = first.model_copy(update={"unit_hash": unit_hash(header_of(self), unit)})
        path = output.folder / part_name(unit.number)
        tables = (table for source in unit.sources for table in self._tables(source, metadata, output))
        write_compact(path, metadata, tables, self.settings.group_megabytes * MEGABYTE, self.more)

    def _tables(self, source: Source, metadata: TableMetadata, output: UnitOutput) -> Iterator[pa.Table]:
        """Yield the row groups of a file, and count their rows."""
        with open_parquet(source) as file:
            found = metadata_of_schema(file.schema_arrow, source.where)
            if not (found.agrees_with(metadata) and found.agrees_with(self.sources.metadata)):
                raise InputError(
                    f"{source.where} holds codes of another codec or setting than the other files of the table; keep"
                    " one table per folder."
                )
            self._check_columns(columns_of_users(file.schema_arrow, metadata), source)
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, use_threads=False)
                for dataset, seconds, frames in zip(
                    *(table[name].to_pylist() for name in ("dataset", "duration", "n_frames")), strict=True
                ):
                    output.read(dataset, seconds)
                    output.keep(dataset, seconds, frames * metadata.n_codebooks)
                yield table

    def _check_columns(self, found: list[pa.Field], source: Source) -> None:
        if types_of(found) != types_of(self.more):
            names, others = (", ".join(field.name for field in fields) or "none" for fields in (found, self.more))
            raise InputError(
                f"{source.where} has other added columns ({names}) than the first file ({others}), or other types; give"
                " all files the same columns."
            )
