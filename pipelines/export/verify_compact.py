"""Checks of compacted token tables: parts agree with their records, ids are unique, the codec is one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import cast

from codectok.errors import VerificationError
from codectok.pipelines.engine.job import UnitRecord
from codectok.pipelines.engine.output import unit_hash
from codectok.pipelines.engine.plan import Plan
from codectok.pipelines.verify.parts import PartTotals, RowIds, compare_totals, open_part
from codectok.storage import Storage


class CompactVerifier:
    """Checks the parts of a table, in any order and from several threads; `finish` checks the table as a whole."""

    def __init__(self, storage: Storage, plan: Plan) -> None:
        self._storage, self._plan = storage, plan
        self._lock = threading.Lock()
        self._ids = RowIds(storage)

    def check_of(self, record: UnitRecord, name: str) -> Callable[[], None]:
        """Return the check of the part `name` of the unit of `record`."""
        return lambda: self._check(record, name)

    def finish(self, records: list[UnitRecord]) -> None:
        """Check the table as a whole: no row is missing, and ids are unique."""
        for record in records:
            total = record.total
            if total.rows != total.inputs:
                raise VerificationError(
                    f"The unit {record.unit} of {self._storage.url} has {total.rows} rows of {total.inputs}."
                )
        self._ids.refuse_repeated()

    def _check(self, record: UnitRecord, name: str) -> None:
        where = f"{self._storage.url}/{name}"
        options = self._plan.header.options
        with self._lock:  # a plan caches the sources of one generation
            planned_hash = unit_hash(self._plan.header, self._plan.unit(record.unit))
        columns = cast(Mapping[str, str], options.get("columns", {}))
        with open_part(self._storage, name, columns) as (file, metadata):
            found = (metadata.codec_fingerprint, metadata.dtype, metadata.device)
            if found != (options["codec"], options["dtype"], options["device"]):
                raise VerificationError(f"{where} holds codes of another codec or setting than the plan.")
            if metadata.unit_hash != planned_hash:
                raise VerificationError(f"{where} was made from other sources or options than the plan.")
            totals = PartTotals(file, metadata, where)
        compare_totals(totals, record, where)
        with self._lock:
            self._ids.add(name, totals.ids)
