"""Verifier of evaluations: the files about the whole follow from the rows of all units."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codectok.errors import VerificationError
from codectok.evaluation.metrics.base import Quantity
from codectok.evaluation.summary import EvaluationSummary
from codectok.pipelines.engine.output.records import UnitRecord
from codectok.pipelines.engine.output.summary import described_files
from codectok.pipelines.engine.verifier import OutputVerifier
from codectok.storage import Storage

from .facts import EvaluationFacts, tables_of_units
from .files import CODES_COLUMN, METRICS_FILE, REFERENCES_FILE, SUMMARY_FILE
from .references import lists_of_references
from .results import read_measurements, summary_of


class EvaluationVerifier(OutputVerifier):
    """Checks the rows of each unit, and that `metrics.parquet` and `summary.json` follow from them."""

    @classmethod
    def files_about_the_whole(cls, storage: Storage) -> Collection[str]:
        """Files that the summary of the job lists; their names depend on the codecs."""
        return described_files(storage)

    def check(self, record: UnitRecord, name: str) -> None:
        """Audio files of `--references`: only their hashes are checked."""

    def finish(self) -> None:
        """Check rows, codes and ids, and compute the files about the whole again."""
        stored = self._summary()
        if stored is None:
            return
        facts = EvaluationFacts(
            stored.codecs,
            stored.controls,
            [Quantity(name, facts.better, facts.description) for name, facts in stored.metrics.items()],
            stored.sample_rate,
            stored.not_installed,
            stored.preset,
        )
        self._compare_rows(facts)
        for name, content in (lists_of_references(self.storage, facts) if self._has_lists() else {}).items():
            if self.storage.read(name) != content:
                raise VerificationError(f"{self.storage.url}/{name} does not list the audio of the rows.")
        if summary_of(*read_measurements(self.storage, facts), self.records, facts) != stored:
            raise VerificationError(f"{self.storage.url}/{SUMMARY_FILE} does not follow from the rows.")

    def _compare_rows(self, facts: EvaluationFacts) -> None:
        """Compare each unit with its record, and with its row group of `metrics.parquet`."""
        units = {record.unit: record for record in self.records}
        ids: set[str] = set()
        n_ids = 0
        with self.storage.open(METRICS_FILE) as opened, pq.ParquetFile(opened, pre_buffer=False) as joined:
            groups = iter(range(joined.num_row_groups))
            for unit, table in tables_of_units(self.storage):
                self._check_unit(units.pop(unit), len(table), facts)
                self._check_codes(table, facts, unit)
                group = next(groups, None)
                found = None if group is None else joined.read_row_group(group, use_threads=False)
                if found is None or not found.equals(table.drop_columns([CODES_COLUMN])):
                    raise VerificationError(f"{self.storage.url}/{METRICS_FILE} does not hold the rows of unit {unit}.")
                of_unit = table["id"].to_pylist()[:: len(facts.systems)]
                ids.update(of_unit)
                n_ids += len(of_unit)
            if next(groups, None) is not None:
                raise VerificationError(f"{self.storage.url}/{METRICS_FILE} holds more rows than the units.")
        for record in units.values():
            self._check_unit(record, 0, facts)
        if len(ids) < n_ids:
            raise VerificationError(f"{self.storage.url} has several clips of the same id.")

    def _has_lists(self) -> bool:
        return REFERENCES_FILE in described_files(self.storage)

    def _summary(self) -> EvaluationSummary | None:
        """The stored summary; None if there are no rows."""
        if not any(record.total.rows for record in self.records):
            return None
        return EvaluationSummary.model_validate_json(self.storage.read(SUMMARY_FILE))

    def _check_unit(self, record: UnitRecord, n_rows: int, facts: EvaluationFacts) -> None:
        expected = record.total.rows * len(facts.systems)
        if n_rows != expected:
            raise VerificationError(
                f"The unit {record.unit} of {self.storage.url} has {n_rows} rows, but its record says {expected}."
            )

    def _check_codes(self, table: pa.Table, facts: EvaluationFacts, unit: int) -> None:
        for label, codec in facts.codecs.items():
            rows = table.filter(pa.compute.equal(table["system"], label))
            lists = rows[CODES_COLUMN].combine_chunks()
            frames = rows["n_frames"].fill_null(0).to_numpy()
            lengths = lists.value_lengths().fill_null(0).to_numpy()
            codes = lists.flatten().to_numpy()
            inside = not len(codes) or (codes.min() >= 0 and codes.max() < codec.codebook_size)
            if not inside or not np.array_equal(lengths, frames * codec.n_codebooks):
                raise VerificationError(f"The unit {unit} of {self.storage.url} has impossible codes of {label}.")
