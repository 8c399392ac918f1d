"""Rows of a unit of codes that other programs wrote, as rows of a token table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from codectok.description import CodecDescription
from codectok.errors import AudioError
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.source import Source
from codectok.tokens.imports.files import rows_of_file
from codectok.tokens.imports.lines import rows_of_lines
from codectok.tokens.imports.parquet import rows_of_parquet
from codectok.tokens.imports.rows import FieldNames, ForeignRow
from codectok.tokens.imports.shapes import CodeForm
from codectok.tokens.table import TokenRow


@dataclass(frozen=True)
class ImportedRow:
    """A row of a source.

    Attributes:
        dataset, source: dataset, and name of the file and of the row in it.
        place: identifies the row among all of the job.
        found: the row as it was read.
        row: of the table, or why there is none.
    """

    dataset: str
    source: str
    place: str
    found: ForeignRow
    row: TokenRow | AudioError


@dataclass(frozen=True)
class ImportedRows:
    """Reads the rows of units.

    Attributes:
        codec: of the codes.
        form: shape and range of the codes.
        names: of columns or fields.
    """

    codec: CodecDescription
    form: CodeForm
    names: FieldNames

    def of_unit(self, unit: Unit) -> Iterator[ImportedRow]:
        """Yield all rows of a unit, in order; each file, line or row of Parquet is one."""
        for source in unit.sources:
            for found in self._found(source):
                name = f"{source.name}/{found.place}" if found.place else source.name
                row = found.codes if isinstance(found.codes, AudioError) else self._row(source, name, found)
                yield ImportedRow(source.dataset, name, f"{source.dataset}\0{name}", found, row)

    def _found(self, source: Source) -> Iterator[ForeignRow]:
        if source.kind == "parquet":
            return rows_of_parquet(source, self.names)
        return rows_of_lines(source, self.names) if source.kind == "lines" else rows_of_file(source)

    def _row(self, source: Source, name: str, found: ForeignRow) -> TokenRow | AudioError:
        assert not isinstance(found.codes, AudioError)
        try:
            codes = self.form.frames_of(found.codes, found.offset)
        except AudioError as error:
            return error
        # Others do not say how many samples a clip had; whole frames are the most that its codes stand for.
        n_samples = len(codes) * self.codec.frame_size
        labels = found.span.labels
        return TokenRow(
            id=name if found.key is None else found.key,
            source=name,
            dataset=source.dataset,
            start=0.0,
            duration=n_samples / self.codec.sample_rate,
            n_samples=n_samples,
            codes=codes,
            text=found.span.text,
            language=labels.language,
            speaker=labels.speaker,
            category=labels.category,
            extra=found.span.extra,
        )
