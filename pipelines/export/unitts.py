"""`export unitts`: pretraining data for UniTTS from token tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import JsonValue

from codectok.exports.choices import UnittsStyle, UnittsTask
from codectok.exports.codes import file_name
from codectok.exports.sequences.documents import MissingFieldError
from codectok.exports.unitts import (
    UNITTS_SCHEMA,
    audio_file,
    check_unitts,
    dialog_row,
)
from codectok.pipelines.engine.output.unit_files import part_name
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.cutting import CuttingPolicy
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.table_job import write_rows
from codectok.sources.rejects import Reject
from codectok.tokens.table import TokenRow
from codectok.tokens.vocabulary import DEFAULT_OFFSET, Vocabulary

from .export_job import ExportJob
from .options import check_unit_megabytes
from .sources import ExportSources
from .verify import UnittsVerifier


@dataclass(frozen=True)
class UnittsOptions:
    """Contents and format of the output.

    Attributes:
        task: "audio", "tts" or "asr".
        style: "parquet" (seven columns), or "audio-json" (a `.audio` file per row).
        offset: id of the first code.
        part_megabytes: MB of the table per part file.
        allow_mixed: accept tables of one codec whose codes were computed differently.
    """

    task: UnittsTask = UnittsTask.TTS
    style: UnittsStyle = UnittsStyle.PARQUET
    offset: int = DEFAULT_OFFSET
    part_megabytes: float = 64.0
    allow_mixed: bool = False

    def __post_init__(self) -> None:
        check_unitts(self.task, self.style)
        check_unit_megabytes(self.part_megabytes)


class UnittsJob(ExportJob):
    """Writes dialogues to Parquet with seven columns, or a folder of `.audio` files per part."""

    verb = "export unitts"
    # 2: names of .audio files contain the table. 3: the plan has arithmetic and device. 4: kernels. 5: ids in rejects.
    bytes_version = 5
    row_name = "samples"
    code_name = "tokens"
    verifier = UnittsVerifier

    def __init__(self, settings: UnittsOptions, tables: Sequence[str]) -> None:
        self.settings = settings
        self.sources = ExportSources.of(tables, allow_mixed=settings.allow_mixed)
        self.vocabulary = Vocabulary.for_codec(self.sources.metadata, settings.offset)
        self.output_bytes_per_second = 300.0 if settings.style == UnittsStyle.PARQUET else 900.0

    def options(self) -> Mapping[str, JsonValue]:
        """Options that decide the output."""
        settings = asdict(self.settings)
        del settings["allow_mixed"]  # the output depends on the mixture, which the sources name
        return {**self.sources.options(), **settings}

    @property
    def cutting(self) -> CuttingPolicy:
        """Units of `part_megabytes` of the table."""
        return CuttingPolicy(unit_bytes=self.settings.part_megabytes * 1e6)

    def run(self, unit: Unit, output: UnitOutput) -> None:
        """Write `part-NNNNNN.parquet`, or the folder `part-NNNNNN` with a file per clip."""
        if self.settings.style == UnittsStyle.PARQUET:
            path = output.folder / part_name(unit.number)
            write_rows(path, UNITTS_SCHEMA, self._dialogs(unit, output))
            return
        folder = output.folder / part_name(unit.number, "")
        folder.mkdir()
        for table, row in self.rows_of(unit, output):
            self._keep(row, output)
            with (folder / file_name(table, row, ".audio")).open("x", encoding="utf-8") as file:
                file.write(audio_file(row, self.vocabulary))

    def _dialogs(self, unit: Unit, output: UnitOutput) -> Iterator[Mapping[str, Any]]:
        """Yield the dialogues of a unit."""
        settings = self.settings
        for _, row in self.rows_of(unit, output):
            try:
                dialog = dialog_row(row, self.vocabulary, settings.task, self.sources.metadata.sample_rate)
            except MissingFieldError as error:
                output.reject(Reject(row.dataset, row.id, row.start, row.duration, "export", "filtered", str(error)))
                continue
            self._keep(row, output)
            yield dialog

    def _keep(self, row: TokenRow, output: UnitOutput) -> None:
        output.keep(row.dataset, row.duration, row.codes.size)
