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

from .files import CODES_COLUMN, METRICS_FILE, SUMMARY_FILE
from .results import summarize_output
from .setting import Setting, tables_of_units


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
        setting = Setting(
            stored.codecs,
            stored.controls,
            [Quantity(name, facts.better, facts.description) for name, facts in stored.metrics.items()],
            stored.sample_rate,
            stored.not_installed,
        )
        tables = dict(tables_of_units(self.storage))
        for record in self.records:
            table = tables.get(record.unit)
            self._check_unit(record, 0 if table is None else len(table), setting)
            if table is not None:
                self._check_codes(table, setting, record.unit)
        joined = pa.concat_tables([table.drop_columns([CODES_COLUMN]) for table in tables.values()])
        ids = joined["id"].to_pylist()[:: len(setting.systems)]
        if len(set(ids)) != len(ids):
            raise VerificationError(f"{self.storage.url} has several clips of the same id.")
        with self.storage.open(METRICS_FILE) as file:
            if not pq.read_table(file, use_threads=False).equals(joined):
                raise VerificationError(f"{self.storage.url}/{METRICS_FILE} does not hold the rows of the units.")
        if summarize_output(self.storage, self.records, setting) != stored:
            raise VerificationError(f"{self.storage.url}/{SUMMARY_FILE} does not follow from the rows.")

    def _summary(self) -> EvaluationSummary | None:
        """The stored summary; None if there are no rows."""
        if not any(record.total.rows for record in self.records):
            return None
        return EvaluationSummary.model_validate_json(self.storage.read(SUMMARY_FILE))

    def _check_unit(self, record: UnitRecord, n_rows: int, setting: Setting) -> None:
        expected = record.total.rows * len(setting.systems)
        if n_rows != expected:
            raise VerificationError(
                f"The unit {record.unit} of {self.storage.url} has {n_rows} rows, but its record says {expected}."
            )

    def _check_codes(self, table: pa.Table, setting: Setting, unit: int) -> None:
        for label, codec in setting.codecs.items():
            rows = table.filter(pa.compute.equal(table["system"], label))
            lists = rows[CODES_COLUMN].combine_chunks()
            frames = rows["n_frames"].fill_null(0).to_numpy()
            lengths = lists.value_lengths().fill_null(0).to_numpy()
            codes = lists.flatten().to_numpy()
            inside = not len(codes) or (codes.min() >= 0 and codes.max() < codec.codebook_size)
            if not inside or not np.array_equal(lengths, frames * codec.n_codebooks):
                raise VerificationError(f"The unit {unit} of {self.storage.url} has impossible codes of {label}.")
