"""`export compact`: merges the files of a token table into larger ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
from pydantic import JsonValue

from codectok.errors import InputError
from codectok.exports.compact import MEGABYTE, write_compact
from codectok.pipelines.engine.output.folder import unit_hash
from codectok.pipelines.engine.output.unit_files import part_name
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.cutting import TABLE_BYTES_PER_SECOND, CuttingPolicy
from codectok.pipelines.engine.planning.store import header_of
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.opening import open_parquet
from codectok.sources.source import Source
from codectok.tokens.mixing import ARITHMETIC_FIELDS, VERSION_FIELDS, arithmetic_of, join_metadata, refuse_uncovered
from codectok.tokens.source_rows import table_metadata
from codectok.tokens.table import TableMetadata, columns_of_users, metadata_of_schema, types_of

from .export_job import ExportJob
from .sources import ExportSources, first_file
from .verify_compact import CompactVerifier


@dataclass(frozen=True)
class CompactOptions:
    """Sizes of files and row groups.

    Attributes:
        file_megabytes: MB of the table's files to merge into one; larger files are not cut.
        group_megabytes: least MB of codes in a row group.
        allow_mixed: accept a table of one codec whose codes were computed differently.
    """

    file_megabytes: float = 256.0
    group_megabytes: float = 32.0
    allow_mixed: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.group_megabytes <= self.file_megabytes < math.inf:
            raise InputError(
                f"Row groups of {self.group_megabytes:g} MB in files of {self.file_megabytes:g} MB are impossible;"
                " give sizes above 0, with groups not larger than files."
            )


class CompactJob(ExportJob):
    """Writes the rows of a token table, in the same order, to fewer files `part-NNNNNN.parquet`."""

    verb = "export compact"
    row_name = "rows"
    bytes_version = 3  # 2: files record mixed arithmetic. 3: and kernels
    verifier = CompactVerifier
    output_bytes_per_second = TABLE_BYTES_PER_SECOND

    def __init__(self, settings: CompactOptions, table: str) -> None:
        self.settings = settings
        self.sources = ExportSources.of([table], allow_mixed=settings.allow_mixed)
        with open_parquet(first_file(table)) as file:
            more = columns_of_users(file.schema_arrow, self.sources.metadata)
        # Sorted, so that the order does not depend on the first file.
        self.more = sorted(more, key=lambda field: field.name)

    def options(self) -> Mapping[str, JsonValue]:
        """Options that decide the output, and the settings that all codes of the table share."""
        metadata, settings = self.sources.metadata, self.settings
        return {
            **self.sources.options(),
            "pack_frames": None if metadata.device == "cpu" else metadata.pack_frames,
            "batch_seconds": metadata.batch_seconds,
            **({"columns": {**types_of(self.more)}} if self.more else {}),
            "file_megabytes": settings.file_megabytes,
            "group_megabytes": settings.group_megabytes,
        }

    @property
    def cutting(self) -> CuttingPolicy:
        """Units of whole files of the table."""
        unit_bytes = self.settings.file_megabytes * MEGABYTE
        return CuttingPolicy(unit_bytes=unit_bytes, whole_files=True)

    def run(self, unit: Unit, output: UnitOutput) -> None:
        """Write `part-NNNNNN.parquet`."""
        metadata = self._metadata_of(unit)
        path = output.folder / part_name(unit.number)
        tables = (table for source in unit.sources for table in self._tables(source, metadata, output))
        write_compact(path, metadata, tables, self.settings.group_megabytes * MEGABYTE, self.more)

    def _metadata_of(self, unit: Unit) -> TableMetadata:
        """Describe the unit's files, which share the arithmetic and devices of the table, or their mixture.

        Versions are the unit's own: others may come as the table grows.
        """
        own = join_metadata([table_metadata(source) for source in unit.sources])
        shared = self.sources.metadata
        versions = {name: values for name, values in own.mixed.items() if name in VERSION_FIELDS}
        update = {field: getattr(shared, field) for field in ARITHMETIC_FIELDS if field in shared.mixed}
        mixed = {field: tuple(values) for field, values in arithmetic_of(shared).items()}
        update |= {"mixed": mixed | versions, "unit_hash": unit_hash(header_of(self), unit)}
        return own.model_copy(update=update)

    def _tables(self, source: Source, metadata: TableMetadata, output: UnitOutput) -> Iterator[pa.Table]:
        """Yield the row groups of a file, and count their rows."""
        with open_parquet(source) as file:
            refuse_uncovered(self.sources.metadata, source.where, metadata_of_schema(file.schema_arrow, source.where))
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
