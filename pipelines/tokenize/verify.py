"""Verifier of token tables: codes, lengths, ids and statistics."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codectok.errors import VerificationError
from codectok.pipelines.engine.output.folder import unit_hash
from codectok.pipelines.engine.output.records import UnitRecord
from codectok.pipelines.engine.output.statistics import STATISTICS_FILE
from codectok.pipelines.engine.output.summary import JobSummary
from codectok.pipelines.engine.output.unit_files import code_counts_name
from codectok.pipelines.engine.output.verify_rejects import verified_rejects
from codectok.pipelines.engine.planning.plan import Plan
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.verifier import OutputVerifier, Verified
from codectok.sources.kinds import CONTAINERS
from codectok.sources.rejects import REST_STAGE
from codectok.storage import Storage
from codectok.tokens.table import TableMetadata, columns_of_users, read_metadata, types_of

from .options import PlannedOptions
from .statistics import read_statistics, statistics_of
from .table_parts import PartTotals, RowIds, SourceName, compare_totals, names_in_rejects, open_part


def bare_parts(storage: Storage) -> list[str]:
    """Names of the Parquet files directly in a folder."""
    return [name for name in storage.sizes() if name.endswith(".parquet") and "/" not in name]


def verify_bare_table(storage: Storage, names: list[str], on_file: Callable[[], None]) -> Verified:
    """Check a token table without a plan: each file by itself, and that ids are unique.

    Users may have added columns, the same to all files.

    Raises:
        InputError: the files are not a token table, or they mix codecs.
        VerificationError: names the first wrong place.
    """
    read_metadata(storage.url)
    ids = RowIds(storage)
    rows, seconds = 0, 0.0
    types: dict[str, str] | None = None
    for name in names:
        with open_part(storage, name, None) as (file, metadata):
            found = types_of(columns_of_users(file.schema_arrow, metadata))
            if types is not None and found != types:
                raise VerificationError(f"{storage.url}/{name} has other columns than {names[0]}.")
            types = found
            totals = PartTotals(file, metadata, f"{storage.url}/{name}")
        ids.add(name, totals.ids)
        rows, seconds = rows + totals.rows, seconds + totals.seconds
        on_file()
    ids.refuse_repeated()
    sizes = storage.sizes()
    return Verified(None, len(names), sum(sizes[name] for name in names), rows, seconds)


class TableVerifier(OutputVerifier):
    """Checks the parts of a token table against plan and records, its ids and its statistics."""

    def __init__(self, storage: Storage, plan: Plan, records: Sequence[UnitRecord]) -> None:
        super().__init__(storage, plan, records)
        self._lock = threading.Lock()
        self._ids = RowIds(storage)
        self._counts: np.ndarray | None = None

    def finish(self) -> None:
        """Check that ids are unique, that units without rows have rejects, and that the statistics are right."""
        self._ids.refuse_repeated()
        for record in self.records:
            if not record.total.rows:
                self._check_coverage(self._unit(record), record, Counter())
        try:
            statistics = read_statistics(self.storage, VerificationError)
        except FileNotFoundError:
            raise VerificationError(f"{self.storage.url}/{STATISTICS_FILE} is missing.") from None
        counts = self._counts
        if counts is None:  # a table without parts
            counts = np.zeros((len(statistics.codebooks), len(statistics.codebooks[0].counts)))
        if statistics.model_copy(update={"timing": None}) != statistics_of(
            JobSummary.of(self.plan, self.records).total, counts
        ):
            raise VerificationError(f"{self.storage.url}/{STATISTICS_FILE} does not agree with the rows of the table.")

    def check(self, record: UnitRecord, name: str) -> None:
        """Check a part."""
        where = f"{self.storage.url}/{name}"
        unit = self._unit(record)
        with open_part(self.storage, name, {}) as (file, metadata):
            self._compare_metadata(metadata, where, unit)
            totals = PartTotals(file, metadata, where)
        compare_totals(totals, record, where)
        self._check_coverage(unit, record, totals.sources)
        self._compare_counts(record.unit, totals.counts)
        with self._lock:
            self._ids.add(name, totals.ids)
            self._counts = totals.counts if self._counts is None else self._counts + totals.counts

    def _unit(self, record: UnitRecord) -> Unit:
        with self._lock:  # a plan keeps the sources of one generation in memory
            return self.plan.unit(record.unit)

    def _compare_metadata(self, metadata: TableMetadata, where: str, unit: Unit) -> None:
        options = PlannedOptions.from_plan(self.plan)
        if metadata.codec_fingerprint != options.codec:
            raise VerificationError(f"{where} holds codes of another codec than the plan.")
        found = (metadata.dtype, metadata.device, metadata.pack_frames, metadata.batch_seconds, metadata.kernels)
        planned = (options.dtype, options.device, options.pack_frames, options.batch_seconds, options.kernels)
        if found != planned:
            raise VerificationError(
                f"{where} was computed with another arithmetic, device or size of batches than the plan."
            )
        if metadata.unit_hash != unit_hash(self.plan.header, unit):
            raise VerificationError(f"{where} was made from other sources or options than the plan.")

    def _check_coverage(self, unit: Unit, record: UnitRecord, rows: Counter[SourceName]) -> None:
        """Raise an error if a planned source is neither row nor reject, or if a row comes from another source."""
        sliced = PlannedOptions.from_plan(self.plan).max_seconds is not None
        rejects = [reject for reject in verified_rejects(self.storage, record) if reject.stage != REST_STAGE]
        found = names_in_rejects(rows.elements()) + Counter((reject.dataset, reject.source) for reject in rejects)
        of_unit = f"the unit {unit.number} of {self.storage.url}"
        total = record.total
        if not sliced and total.inputs != found.total():
            raise VerificationError(
                f"In {of_unit} {total.inputs} clips were read, but {found.total()} are rows or rejects."
            )
        planned = names_in_rejects((s.dataset, s.name) for s in unit.sources if s.kind not in CONTAINERS)
        # The contents of containers are not planned, and their samples name the recordings they were cut from.
        foreign = [] if any(source.kind in CONTAINERS for source in unit.sources) else sorted(found.keys() - planned)
        if foreign:
            raise VerificationError(f"The source {foreign[0][1]} of a row of {of_unit} is not in the plan.")
        missing = planned - found
        perhaps_no_audio = names_in_rejects((s.dataset, s.name) for s in unit.sources if s.kind == "unknown")
        certain = sorted(missing.keys() - perhaps_no_audio.keys())
        if certain or missing.total() > total.ignored:
            name = (certain or sorted(missing))[0][1]
            raise VerificationError(f"The source {name} of {of_unit} is neither a row nor a reject.")

    def _compare_counts(self, unit: int, counts: np.ndarray) -> None:
        name = code_counts_name(unit)
        try:
            stored = pq.read_table(pa.BufferReader(self.storage.read(name)), use_threads=False)["count"].to_numpy()
        except (FileNotFoundError, OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            raise VerificationError(f"{self.storage.url}/{name} is missing or damaged.") from None
        if not np.array_equal(stored, counts.reshape(-1)):
            raise VerificationError(f"{self.storage.url}/{name} does not count the codes of its part.")
