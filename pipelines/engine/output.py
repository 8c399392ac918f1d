"""The output folder of a job: attempts at units, their commit, and what is finished.

A worker writes under a name of its own. Only the driver, which holds the job's lock, moves files to their places, and
then writes the unit's record. A unit is complete when its record is there and its files are as recorded.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from codectok.atomic import TEMPORARY_SUFFIX
from codectok.errors import CodectokError, InputError
from codectok.sources.clip import Clip
from codectok.sources.clips import clips_of
from codectok.sources.listing import JOB_FOLDER
from codectok.sources.rejects import Reject
from codectok.sources.source import Source, row_of
from codectok.storage import LocalStorage, Storage

from .job import Job, OutputFile, Tally, UnitOutput, UnitRecord
from .plan import PLAN_FILE, Plan, PlanHeader, Unit

SUMMARY_FILE = f"{JOB_FOLDER}/summary.json"
RECORDS = f"{JOB_FOLDER}/records"
TEMPORARY = f"{JOB_FOLDER}/tmp"
FAILURES = f"{JOB_FOLDER}/failures"
READERS = 16
FILE_OF_A_UNIT = re.compile(
    rf"(?:(?:shard|part)-|{JOB_FOLDER}/(?:records|rejects|failures|codes)/|{JOB_FOLDER}/index/shard-)(\d{{6,}})(?:\.\w+|/[^/]+)?"
)


@dataclass(frozen=True)
class JobSummary:
    """What a job has written so far: `units` of `planned_units` are complete."""

    units: int
    planned_units: int
    files: int
    bytes: int
    total: Tally
    datasets: dict[str, Tally]
    histograms: dict[str, dict[int, int]]

    @property
    def complete(self) -> bool:
        """Whether every unit is."""
        return self.units == self.planned_units

    @classmethod
    def of(cls, plan: Plan, records: Iterable[UnitRecord]) -> JobSummary:
        """Totals of `records`, added in the order of their units."""
        ordered = sorted(records, key=lambda record: record.unit)
        names = sorted({name for record in ordered for name in record.tallies})
        datasets = {name: Tally.sum(r.tallies[name] for r in ordered if name in r.tallies) for name in names}
        total = Tally.sum(datasets.values())
        total.ignored += plan.ignored
        outputs = [file for record in ordered for file in record.files if not file.name.startswith(JOB_FOLDER)]
        histograms: dict[str, dict[int, int]] = {}
        for record in ordered:
            for quantity, counts in record.histograms.items():
                sums = histograms.setdefault(quantity, {})
                for step, count in counts.items():
                    sums[step] = sums.get(step, 0) + count
        return cls(
            units=len(ordered),
            planned_units=len(plan.units),
            files=len(outputs),
            bytes=sum(file.bytes for file in outputs),
            total=total,
            datasets=datasets,
            histograms={name: dict(sorted(counts.items())) for name, counts in sorted(histograms.items())},
        )


class OutputFolder:
    """Commits the units of one run of a job.

    Args:
        storage: where.
        run_name: "whole" or that of a part, so that parts do not clear away each other's attempts.
    """

    def __init__(self, storage: Storage, run_name: str) -> None:
        self.storage = storage
        self._attempts = f"{TEMPORARY}/{run_name}"
        # Actors can outlive a killed driver: what they still write is not where a later run looks.
        self._token = uuid.uuid4().hex[:8]

    def attempt(self, unit: int, number: int) -> str:
        """The folder in which a worker makes the files of a unit for the `number`-th time."""
        return f"{self._attempts}/{unit:06d}-{number}-{self._token}"

    def clear_attempts(self) -> set[int]:
        """Delete what an earlier run of the same name has left behind; the units that it was working on."""
        left = {int(name.removeprefix(self._attempts)[1:7]) for name in self._left_behind()}
        self.storage.remove(self._attempts)
        return left

    def _left_behind(self) -> list[str]:
        if isinstance(self.storage, LocalStorage):  # folders count, too: a worker may have died before its first file
            folder = self.storage.path / self._attempts
            return [f"{self._attempts}/{path.name}" for path in folder.glob("[0-9]*")]
        return list(self.storage.sizes(self._attempts))

    def clear_unrecorded(self, units: Iterable[int]) -> None:
        """Delete what is left of earlier attempts at `units`, whose files may be others than they will be."""
        numbers = set(units)
        for name in self.storage.sizes():
            found = FILE_OF_A_UNIT.fullmatch(name)
            if found and int(found[1]) in numbers:
                self.storage.remove_file(name)

    def note_failure(self, unit: int, details: str) -> str:
        """Store what is known of a unit's failure, and say where."""
        name = f"{FAILURES}/{unit:06d}.txt"
        self.storage.write(name, details.encode(errors="replace") + b"\n")
        return f"{self.storage.url}/{name}"

    def commit(self, record: UnitRecord, attempt: str) -> None:
        """Move the files of a unit to their places and write its record; the record comes last."""
        for file in record.files:
            try:
                self.storage.move(f"{attempt}/{file.name}", file.name)
            except FileNotFoundError:
                raise CodectokError(
                    f"A worker has written {file.name}, but it is not in {self.storage.url} as this machine sees it;"
                    " the output must lie where all machines of the cluster reach it."
                ) from None
        self.storage.remove(attempt)
        self.storage.write(record_name(record.unit), record.model_dump_json(indent=2).encode() + b"\n")


def clear_temporaries(storage: Storage) -> None:
    """Delete what processes that were killed in the middle of writing a small file have left."""
    for name in storage.sizes():
        base = name.rpartition("/")[2]
        if base.startswith(".") and base.endswith(TEMPORARY_SUFFIX):
            storage.remove_file(name)


def record_name(unit: int) -> str:
    """Where the record of a unit lies."""
    return f"{RECORDS}/{unit:06d}.json"


def check_free(storage: Storage) -> None:
    """Refuse a folder that holds something else than a job's output."""
    if isinstance(storage, LocalStorage) and storage.path.exists() and not storage.path.is_dir():
        raise InputError(f"{storage.url} is a file; give a folder for the output.")
    names = storage.sizes()
    # Locks are there before the plan is.
    if names and PLAN_FILE not in names and any(not name.startswith(f"{JOB_FOLDER}/") for name in names):
        raise InputError(f"{storage.url} already exists and holds other files; choose another folder.")


def finished_units(storage: Storage, plan: Plan) -> dict[int, UnitRecord]:
    """The records of all complete units."""
    sizes = storage.sizes()
    names = [name for name in sizes if name.startswith(f"{RECORDS}/") and name.endswith(".json")]

    def read(name: str) -> UnitRecord | None:
        try:
            return UnitRecord.model_validate_json(storage.read(name))
        except ValidationError:
            return None  # made again: a record is no more than a note of what can be made from the plan

    if isinstance(storage, LocalStorage):
        records = [read(name) for name in names]
    else:
        with ThreadPoolExecutor(READERS) as pool:
            records = list(pool.map(read, names))
    return {
        record.unit: record
        for record in records
        if record is not None
        and record.unit < len(plan.units)
        and all(sizes.get(file.name) == file.bytes for file in record.files)
    }


def run_attempt(job: Job, unit: Unit, storage: Storage, attempt: str) -> UnitRecord:
    """Let `job` make the files of `unit` in the folder `attempt`; they are on disk for good when this returns."""
    with storage.staging(attempt) as folder:
        output = UnitOutput(unit, folder)
        for source in unit.crashed:
            _reject_crashed(source, output)
        job.run(unit, output)
        output.finish_rejects()
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return output.record([_sealed(path, folder) for path in paths])


def _reject_crashed(source: Source, output: UnitOutput) -> None:
    dataset, name, where = source.dataset, source.name, source.where
    if source.last_clip is not None:
        clip = next(clips_of(source))
        assert isinstance(clip, Clip), "it has been decoded"
        dataset, name, where = clip.dataset, clip.source, clip.name
    message = f"{where} makes the program that decodes it crash."
    output.read(dataset)
    output.reject(Reject(dataset, name, source.start or 0.0, None, "decode", "decoder_crash", message))


def unit_hash(header: PlanHeader, unit: Unit) -> str:
    """Changes with everything that decides the bytes of a unit."""
    sources = sorted(
        {
            json.dumps([s.dataset, os.fsencode(s.path).hex(), s.size, s.first_byte, s.last_byte, *row_of(s)])
            for s in (*unit.sources, *unit.crashed)
        }
    )
    text = json.dumps([header.verb, header.bytes_version, header.options, sources], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_summary(
    storage: Storage, plan: Plan, summary: JobSummary, records: Sequence[UnitRecord], described: Sequence[str]
) -> None:
    """Mark a job as finished: these `records`, and the files that describe the whole."""
    value = {
        "plan": plan.header.hash,
        "records": _hash_of(records),
        "described": list(described),
        "units": summary.units,
        "files": summary.files,
        "bytes": summary.bytes,
        "total": summary.total.model_dump(),
        "datasets": {name: tally.model_dump() for name, tally in summary.datasets.items()},
    }
    storage.write(SUMMARY_FILE, json.dumps(value, indent=2).encode() + b"\n")


def is_marked_finished(storage: Storage, plan: Plan, records: Sequence[UnitRecord]) -> bool:
    """Whether a run has described these very `records` of this plan, and its files are still there."""
    try:
        found = json.loads(storage.read(SUMMARY_FILE))
        described = set(found["described"])
        same = (found["plan"], found["records"]) == (plan.header.hash, _hash_of(records))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False
    return same and described <= storage.sizes().keys()


def _hash_of(records: Sequence[UnitRecord]) -> str:
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.model_dump_json().encode())
    return digest.hexdigest()


def _sealed(path: Path, folder: Path) -> OutputFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return OutputFile(name=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=digest)
