"""`export codes`: token tables in the forms that other programs read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from codectok.exports.choices import CodesForm, check_choice
from codectok.exports.codes import audio_codes_row, audio_codes_schema, file_name, json_line
from codectok.pipelines.engine.output.unit_files import part_name
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.cutting import CuttingPolicy
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.table_job import write_rows
from codectok.sources.unused import Unused
from codectok.tokens.table import TokenRow

from .export_job import ExportJob
from .options import check_unit_megabytes
from .sources import ExportSources
from .verify_codes import CodesVerifier


@dataclass(frozen=True)
class CodesOptions:
    """Format of the output.

    Attributes:
        form: "audio-codes" (Parquet), "npy" (a file per row), or "jsonl".
        part_megabytes: MB of the tables per part.
        allow_mixed: accept tables of one codec whose codes were computed differently.
    """

    form: CodesForm = CodesForm.AUDIO_CODES
    part_megabytes: float = 64.0
    allow_mixed: bool = False

    def __post_init__(self) -> None:
        check_choice(self.form, CodesForm)
        check_unit_megabytes(self.part_megabytes)


class CodesJob(ExportJob):
    """Writes plain codes, without an offset, to Parquet, JSON lines, or a folder of `.npy` files per part."""

    verb = "export codes"
    row_name = "rows"
    verifier = CodesVerifier
    output_bytes_per_second = 300.0

    def __init__(self, settings: CodesOptions, tables: Sequence[str]) -> None:
        self.settings = settings
        self.sources = ExportSources.of(tables, allow_mixed=settings.allow_mixed)

    def options(self) -> Mapping[str, JsonValue]:
        """Options that decide the output."""
        settings = self.settings
        return {**self.sources.options(), "form": settings.form.value, "part_megabytes": settings.part_megabytes}

    @property
    def cutting(self) -> CuttingPolicy:
        """Units of `part_megabytes` of the tables."""
        return CuttingPolicy(unit_bytes=self.settings.part_megabytes * 1e6)

    def run(self, unit: Unit, output: UnitOutput) -> None:
        """Write `part-NNNNNN.parquet` or `.jsonl`, or the folder `part-NNNNNN` with a file per clip."""
        form, rows = self.settings.form, self._rows(unit, output)
        if form == CodesForm.AUDIO_CODES:
            schema = audio_codes_schema(self.sources.metadata.n_codebooks)
            write_rows(output.folder / part_name(unit.number), schema, (audio_codes_row(row) for _, row in rows))
        elif form == CodesForm.JSONL:
            path = output.folder / part_name(unit.number, ".jsonl")
            with path.open("x", encoding="utf-8") as file:
                file.writelines(json_line(row) for _, row in rows)
            if not output.rows:
                path.unlink()
        else:
            folder = output.folder / part_name(unit.number, "")
            folder.mkdir()
            for table, row in rows:
                np.save(folder / file_name(table, row, ".npy"), row.codes.astype("<i8"), allow_pickle=False)

    def _rows(self, unit: Unit, output: UnitOutput) -> Iterator[tuple[str, TokenRow]]:
        """Yield rows, each with the name of its table, and count them."""
        for table, row in self.rows_of(unit, output):
            output.keep(row.dataset, row.duration, row.codes.size)
            if row.extra is not None:
                output.leave_unused(row.dataset, Unused("columns", "extra", example=row.id))
            yield table, row
