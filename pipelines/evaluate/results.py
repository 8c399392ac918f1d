"""Results of a finished evaluation: the rows of all units in one file, the summary, and the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codectok.errors import CodectokError
from codectok.evaluation.metrics.base import Quantity
from codectok.evaluation.summary import Codes, EvaluationSummary, Measurements, median_delays, summarize
from codectok.names import printable
from codectok.pipelines.engine.job import JobReporter
from codectok.pipelines.engine.output.records import Counts, UnitRecord
from codectok.storage import Storage

from .facts import EvaluationFacts, tables_of_units
from .files import CODES_COLUMN, DELAY_COLUMN, METRICS_FILE, PAGE_FILE, SUMMARY_FILE, rows_schema
from .page import write_page
from .references import lists_of_references


class EvaluationReporter(JobReporter):
    """Writes `metrics.parquet`, `summary.json` and `report.html`.

    Args:
        facts: what was measured.
        worst_by: metric that tells the worst clips; None without one.
        references: write lists of the audio for other tools.
    """

    def __init__(self, facts: EvaluationFacts, worst_by: Quantity | None, references: bool) -> None:
        self._facts, self._worst_by, self._references = facts, worst_by, references

    def write_files(self, storage: Storage, records: Sequence[UnitRecord], total: Counts) -> Sequence[str]:
        """Write the files about the whole, and return their names."""
        if not total.rows:
            return ()
        names = [METRICS_FILE, SUMMARY_FILE, PAGE_FILE]
        storage.write(METRICS_FILE, joined_rows(storage, self._facts))
        found, codes = read_measurements(storage, self._facts)
        summary = summary_of(found, codes, records, self._facts)
        storage.write(SUMMARY_FILE, (summary.model_dump_json(indent=2) + "\n").encode())
        write_page(storage, summary, found, self._worst_by)
        if self._references:
            for name, content in lists_of_references(storage, self._facts).items():
                storage.write(name, content)
                names.append(name)
        return names


def summary_of(
    found: Measurements, codes: Codes, records: Sequence[UnitRecord], facts: EvaluationFacts
) -> EvaluationSummary:
    """Compute the summary from the measurements and codes of all units."""
    categories, metrics = summarize(found, codes, facts.codecs)
    return EvaluationSummary(
        codecs=dict(facts.codecs),
        controls=tuple(facts.controls),
        sample_rate=facts.sample_rate,
        metrics=metrics,
        preset=facts.preset,
        delays=median_delays(found),
        categories=categories,
        cut=sum(sum(record.histograms.get("cut", {}).values()) for record in records),
        not_installed=dict(facts.not_installed),
    )


def joined_rows(storage: Storage, facts: EvaluationFacts) -> bytes:
    """Return the rows of all units, without codes, as one Parquet file."""
    schema = rows_schema(facts.quantities)
    stream = pa.BufferOutputStream()
    with pq.ParquetWriter(stream, schema.remove(schema.get_field_index(CODES_COLUMN)), compression="zstd") as writer:
        for _, table in tables_of_units(storage):
            writer.write_table(table.drop_columns([CODES_COLUMN]))
    content: bytes = stream.getvalue().to_pybytes()
    return content


def read_measurements(storage: Storage, facts: EvaluationFacts) -> tuple[Measurements, Codes]:
    """Read the rows of all units.

    Raises:
        CodectokError: several clips have one id.
    """
    n_systems = len(facts.systems)
    codes: dict[str, list[np.ndarray | None]] = {label: [] for label in facts.codecs}
    values, delays, seconds = [], [], []
    names: list[tuple[str, str]] = []
    categories: list[str] = []
    ids: list[str] = []
    for _, table in tables_of_units(storage):
        columns = [_floats(table, quantity.name) for quantity in facts.quantities]
        values.append(np.stack(columns, axis=1).reshape(-1, n_systems, len(columns)))
        delays.append(_floats(table, DELAY_COLUMN).reshape(-1, n_systems))
        seconds.append(_floats(table, "seconds")[::n_systems])
        names += zip(*(table[name].to_pylist()[::n_systems] for name in ("dataset", "source")), strict=True)
        categories += table["category"].to_pylist()[::n_systems]
        ids += table["id"].to_pylist()[::n_systems]
        lists = table[CODES_COLUMN].combine_chunks()
        for row in range(len(table)):
            label = facts.systems[row % n_systems]
            if label in codes:
                flat = lists[row].values
                codes[label].append(
                    None if flat is None else flat.to_numpy().reshape(-1, facts.codecs[label].n_codebooks)
                )
    _refuse_repeated(ids, storage)
    recordings = {name: number for number, name in enumerate(dict.fromkeys(names))}
    numbers = np.array([recordings[name] for name in names], np.int64)
    found = Measurements(
        systems=facts.systems,
        quantities=facts.quantities,
        values=np.concatenate(values),
        delays=np.concatenate(delays),
        recordings=numbers,
        categories=np.array(categories),
        seconds=np.concatenate(seconds),
        folds=_folds(numbers, categories),
    )
    return found, codes


def _floats(table: pa.Table, name: str) -> np.ndarray:
    """Column as float64, with NaN for null."""
    column: np.ndarray = table[name].cast(pa.float64()).fill_null(float("nan")).to_numpy()
    return column


def _folds(recordings: np.ndarray, categories: Sequence[str]) -> np.ndarray:
    """Return 0 or 1 for each clip, the same for all clips of a recording, with half the recordings of each category."""
    fold_of: dict[int, int] = {}
    counts: Counter[str] = Counter()
    for recording, category in zip(recordings.tolist(), categories, strict=True):
        if recording not in fold_of:
            fold_of[recording] = counts[category] % 2
            counts[category] += 1
    return np.array([fold_of[recording] for recording in recordings.tolist()], np.int64)


def _refuse_repeated(ids: Sequence[str], storage: Storage) -> None:
    if len(set(ids)) < len(ids):
        repeated, _ = Counter(ids).most_common(1)[0]
        raise CodectokError(
            f"Several clips have the id {printable(repeated)}, so that the results in {storage.url} cannot tell them"
            " apart; give the clips of the test set other ids, and measure them into another folder."
        )
