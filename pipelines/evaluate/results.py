"""Results of a finished evaluation: the rows of all units in one file, the summary, and the page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codectok.evaluation.metrics.base import Quantity
from codectok.evaluation.summary import EvaluationSummary, Measurements, median_delays, summarize
from codectok.pipelines.engine.job import JobReporter
from codectok.pipelines.engine.output.records import Counts, UnitRecord
from codectok.storage import Storage

from .files import CODES_COLUMN, DELAY_COLUMN, METRICS_FILE, PAGE_FILE, SUMMARY_FILE, rows_schema
from .page import write_page
from .references import write_references
from .setting import Setting, tables_of_units


class EvaluationReporter(JobReporter):
    """Writes `metrics.parquet`, `summary.json` and `report.html`.

    Args:
        setting: what was measured.
        worst_by: metric that tells the worst clips; None without one.
        references: write lists of the audio for other tools.
    """

    def __init__(self, setting: Setting, worst_by: Quantity | None, references: bool) -> None:
        self._setting, self._worst_by, self._references = setting, worst_by, references

    def write_files(self, storage: Storage, records: Sequence[UnitRecord], total: Counts) -> Sequence[str]:
        """Write the files about the whole, and return their names."""
        if not total.rows:
            return ()
        names = [METRICS_FILE, SUMMARY_FILE, PAGE_FILE]
        storage.write(METRICS_FILE, joined_rows(storage, self._setting))
        summary = summarize_output(storage, records, self._setting)
        storage.write(SUMMARY_FILE, (summary.model_dump_json(indent=2) + "\n").encode())
        write_page(storage, summary, self._setting, self._worst_by)
        if self._references:
            names += write_references(storage, self._setting)
        return names


def summarize_output(storage: Storage, records: Sequence[UnitRecord], setting: Setting) -> EvaluationSummary:
    """Compute the summary from the rows of all units."""
    found, codes = _measurements(storage, setting)
    categories, facts = summarize(found, codes, setting.codecs)
    return EvaluationSummary(
        codecs=dict(setting.codecs),
        controls=tuple(setting.controls),
        sample_rate=setting.sample_rate,
        metrics=facts,
        delays=median_delays(found),
        categories=categories,
        cut=sum(sum(record.histograms.get("cut", {}).values()) for record in records),
        not_installed=dict(setting.not_installed),
    )


def joined_rows(storage: Storage, setting: Setting) -> bytes:
    """Return the rows of all units, without codes, as one Parquet file."""
    schema = rows_schema(setting.quantities)
    stream = pa.BufferOutputStream()
    with pq.ParquetWriter(stream, schema.remove(schema.get_field_index(CODES_COLUMN)), compression="zstd") as writer:
        for _, table in tables_of_units(storage):
            writer.write_table(table.drop_columns([CODES_COLUMN]))
    content: bytes = stream.getvalue().to_pybytes()
    return content


def _measurements(storage: Storage, setting: Setting) -> tuple[Measurements, dict[str, list[np.ndarray | None]]]:
    """Read the rows of all units."""
    n_systems = len(setting.systems)
    codes: dict[str, list[np.ndarray | None]] = {label: [] for label in setting.codecs}
    values, delays, seconds = [], [], []
    names: list[tuple[str, str]] = []
    categories: list[str] = []
    for _, table in tables_of_units(storage):
        columns = [_floats(table, quantity.name) for quantity in setting.quantities]
        values.append(np.stack(columns, axis=1).reshape(-1, n_systems, len(columns)))
        delays.append(_floats(table, DELAY_COLUMN).reshape(-1, n_systems))
        seconds.append(_floats(table, "seconds")[::n_systems])
        names += zip(*(table[name].to_pylist()[::n_systems] for name in ("dataset", "source")), strict=True)
        categories += table["category"].to_pylist()[::n_systems]
        lists = table[CODES_COLUMN].combine_chunks()
        for row in range(len(table)):
            label = setting.systems[row % n_systems]
            if label in codes:
                flat = lists[row].values
                codes[label].append(
                    None if flat is None else flat.to_numpy().reshape(-1, setting.codecs[label].n_codebooks)
                )
    recordings = {name: number for number, name in enumerate(dict.fromkeys(names))}
    numbers = np.array([recordings[name] for name in names], np.int64)
    found = Measurements(
        systems=setting.systems,
        quantities=setting.quantities,
        values=np.concatenate(values),
        delays=np.concatenate(delays),
        recordings=numbers,
        categories=np.array(categories),
        seconds=np.concatenate(seconds),
        folds=numbers % 2,
    )
    return found, codes


def _floats(table: pa.Table, name: str) -> np.ndarray:
    """Column as float64, with NaN for null."""
    column: np.ndarray = table[name].cast(pa.float64()).fill_null(float("nan")).to_numpy()
    return column
