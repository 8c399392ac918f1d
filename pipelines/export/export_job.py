"""The base of jobs that read token tables."""

from __future__ import annotations

from collections.abc import Iterator

from codectok.pipelines.engine.job import Job
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.kinds import Kind
from codectok.sources.listing.arguments import Argument
from codectok.tokens.source_rows import token_rows
from codectok.tokens.table import TokenRow

from .sources import TABLE_KINDS, ExportSources


class ExportJob(Job):
    """A job that reads token tables.

    Attributes:
        sources: the tables.
    """

    kinds = TABLE_KINDS
    sources: ExportSources

    def reads(self, argument: Argument, path: str, kind: Kind | None) -> bool:
        """Read the same files of a table as its other readers, and all files of a text."""
        return self.sources.reads(argument, path, kind)

    def rows_of(self, unit: Unit, output: UnitOutput) -> Iterator[tuple[str, TokenRow]]:
        """Yield the rows of a unit, each with the name of its table, and count them as read."""
        for source in unit.sources:
            for row in token_rows(source, self.sources.metadata):
                output.read(row.dataset, row.duration)
                yield source.dataset, row
