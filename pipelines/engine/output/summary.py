"""Summary of a job's output, and the file that marks a job as finished."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from codectok.names import JOB_FOLDER
from codectok.pipelines.engine.planning.plan import Plan
from codectok.sources.unused import UnusedEntry, sum_unused
from codectok.storage import Storage

from .records import Counts, CountsSum, UnitRecord

SUMMARY_FILE = f"{JOB_FOLDER}/summary.json"


@dataclass(frozen=True)
class JobSummary:
    """Totals of a job's output so far: `units` of `planned_units` are complete.

    `layouts` are the layouts of corpora that were recognised.
    """

    units: int
    planned_units: int
    files: int
    bytes: int
    total: Counts
    datasets: dict[str, Counts]
    histograms: dict[str, dict[int, int]]
    layouts: dict[str, UnusedEntry] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """True if all units are complete."""
        return self.units == self.planned_units

    @classmethod
    def of(cls, plan: Plan, records: Iterable[UnitRecord]) -> JobSummary:
        """Totals of `records`, in the order of their units."""
        units = files = size = 0
        sums: dict[str, CountsSum] = {}
        histograms: dict[str, Counter[int]] = {}
        for record in records:
            units += 1
            outputs = [file for file in record.files if not file.name.startswith(JOB_FOLDER)]
            files += len(outputs)
            size += sum(file.bytes for file in outputs)
            for name, counts in record.counts.items():
                sums.setdefault(name, CountsSum()).add(counts)
            for quantity, numbers in record.histograms.items():
                histograms.setdefault(quantity, Counter()).update(numbers)
        datasets = {name: counts.total() for name, counts in sorted(sums.items())}
        total = Counts.sum(datasets.values())
        total.ignored += plan.ignored
        total.unused = sum_unused([plan.unused, total.unused])
        return cls(
            units=units,
            planned_units=len(plan.units),
            files=files,
            bytes=size,
            total=total,
            datasets=datasets,
            histograms={name: dict(sorted(counts.items())) for name, counts in sorted(histograms.items())},
            layouts=plan.layouts,
        )


def write_summary(
    storage: Storage, plan: Plan, summary: JobSummary, records: Sequence[UnitRecord], described: Sequence[str]
) -> None:
    """Mark a job as finished, with its `records` and the files `described` about the whole output."""
    value = {
        "plan": plan.header.hash,
        "records": _hash_of(records),
        "described": list(described),
        "units": summary.units,
        "files": summary.files,
        "bytes": summary.bytes,
        "total": summary.total.model_dump(),
        "datasets": {name: counts.model_dump() for name, counts in summary.datasets.items()},
        "layouts": {name: entry.model_dump() for name, entry in summary.layouts.items()},
    }
    storage.write(SUMMARY_FILE, json.dumps(value, indent=2).encode() + b"\n")


def is_marked_finished(storage: Storage, plan: Plan, records: Sequence[UnitRecord]) -> bool:
    """True if the summary is of this plan and these `records`, and the files that it lists are still there."""
    try:
        found = json.loads(storage.read(SUMMARY_FILE))
        described = set(found["described"])
        same = (found["plan"], found["records"]) == (plan.header.hash, _hash_of(records))
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return same and described <= storage.sizes().keys()


def described_files(storage: Storage) -> set[str]:
    """Names of the files about the whole output, as its summary lists them; empty without a readable summary."""
    try:
        return {str(name) for name in json.loads(storage.read(SUMMARY_FILE))["described"]}
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _hash_of(records: Sequence[UnitRecord]) -> str:
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.to_json())
    return digest.hexdigest()
