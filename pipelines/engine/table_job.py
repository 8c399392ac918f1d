"""Jobs whose units become Parquet files of rows of one schema."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from codectok.phases import OTHER, WRITING
from codectok.pipelines.engine.output.unit_files import part_name
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.cutting import DEFAULT_UNIT_SECONDS, CuttingPolicy
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.kinds import Kind

from .job import Job

BATCH_ROWS = 1024
# Rows with long texts are written fewer at a time, in smaller row groups.
BATCH_CHARACTERS = 1 << 26

Rows = Callable[[Unit, UnitOutput], Iterable[Mapping[str, Any]]]


class TableJob(Job):
    """A job made of a function and a schema; each unit becomes a file `part-NNNNNN.parquet`.

    Args:
        verb: name of the job; another job with another name cannot continue its output.
        rows: yields the rows of a unit. It calls `output.read` for each input, then `output.keep` for each row or
            `output.reject` (see `codectok.pipelines.decoded_clips`).
        schema: columns of the rows.
        options: everything except the sources that determines the rows; a run with other options is refused.
        row_name: name of a row in summaries.
        kinds: kinds of sources that the job reads.
        unit_seconds: estimated audio of a unit.
    """

    def __init__(
        self,
        verb: str,
        rows: Rows,
        schema: pa.Schema,
        options: Mapping[str, JsonValue] | None = None,
        row_name: str = Job.row_name,
        kinds: tuple[Kind, ...] = Job.kinds,
        unit_seconds: float = DEFAULT_UNIT_SECONDS,
    ) -> None:
        self.verb, self.row_name, self.kinds = verb, row_name, kinds
        self._rows, self._schema, self._options = rows, schema, dict(options or {})
        self._cutting = CuttingPolicy(unit_seconds)

    def options(self) -> Mapping[str, JsonValue]:
        """The options given."""
        return self._options

    @property
    def cutting(self) -> CuttingPolicy:
        """Units of `unit_seconds`."""
        return self._cutting

    def run(self, unit: Unit, output: UnitOutput) -> None:
        """Write the rows of a unit."""
        rows = output.clock.steps(OTHER, self._rows(unit, output))
        with output.clock.during(WRITING):
            write_rows(output.folder / part_name(unit.number), self._schema, rows)


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `rows` to a Parquet file as they come; without rows no file is written."""
    writer: pq.ParquetWriter | None = None
    batch: list[Mapping[str, Any]] = []
    n_characters = 0

    def flush() -> None:
        nonlocal writer, n_characters
        if batch:
            writer = writer or pq.ParquetWriter(path, schema, compression="zstd")
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            batch.clear()
            n_characters = 0

    try:
        for row in rows:
            batch.append(row)
            n_characters += sum(len(value) for value in row.values() if isinstance(value, Sized))
            if len(batch) == BATCH_ROWS or n_characters >= BATCH_CHARACTERS:
                flush()
        flush()
    finally:
        if writer is not None:
            writer.close()
