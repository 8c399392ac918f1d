"""Verifier of compacted token tables."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from codectok.errors import VerificationError
from codectok.pipelines.engine.output.folder import unit_hash
from codectok.pipelines.engine.output.records import UnitRecord
from codectok.pipelines.engine.planning.plan import Plan
from codectok.pipelines.engine.verifier import OutputVerifier
from codectok.pipelines.tokenize.table_parts import PartTotals, RowIds, compare_totals, open_part
from codectok.storage import Storage

from .options import PlannedCompactOptions


class CompactVerifier(OutputVerifier):
    """Checks the parts of a compacted table, and that it has all rows, each once."""

    def __init__(self, storage: Storage, plan: Plan, records: Sequence[UnitRecord]) -> None:
        super().__init__(storage, plan, records)
        self._lock = threading.Lock()
        self._ids = RowIds(storage)

    def finish(self) -> None:
        """Check that no row was left out, and that ids are unique."""
        for record in self.records:
            total = record.total
            if total.rows != total.inputs:
                raise VerificationError(
                    f"The unit {record.unit} of {self.storage.url} has {total.rows} rows of {total.inputs}."
                )
        self._ids.refuse_repeated()

    def check(self, record: UnitRecord, name: str) -> None:
        """Check a part."""
        where = f"{self.storage.url}/{name}"
        options = PlannedCompactOptions.from_plan(self.plan)
        with self._lock:  # a plan keeps the sources of one generation in memory
            planned_hash = unit_hash(self.plan.header, self.plan.unit(record.unit))
        with open_part(self.storage, name, options.columns) as (file, metadata):
            found = (metadata.codec_fingerprint, metadata.dtype, metadata.device)
            if found != (options.codec, options.dtype, options.device):
                raise VerificationError(f"{where} holds codes of another codec or setting than the plan.")
            if metadata.unit_hash != planned_hash:
                raise VerificationError(f"{where} was made from other sources or options than the plan.")
            totals = PartTotals(file, metadata, where)
        compare_totals(totals, record, where)
        with self._lock:
            self._ids.add(name, totals.ids)
