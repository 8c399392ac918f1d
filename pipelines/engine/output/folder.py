"""Output folder of a job: attempts at units, their commit, and the units that are complete.

A worker writes to a folder of its attempt. Only the driver, which holds the job's lock, moves files to their final
places, and then writes the unit's record. A unit is complete when its record exists and its files have the recorded
sizes.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from codectok.atomic import TEMPORARY_SUFFIX, is_held, is_temporary
from codectok.errors import CodectokError, InputError
from codectok.names import JOB_FOLDER
from codectok.phases import WRITING
from codectok.pipelines.engine.job import RunUnit
from codectok.pipelines.engine.planning.header import PlanHeader
from codectok.pipelines.engine.planning.plan import PLAN_FILE, Plan
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.uploads import remove_uploads
from codectok.sources.clip import Clip
from codectok.sources.clips import clips_of
from codectok.sources.rejects import Reject
from codectok.sources.source import Source, row_of
from codectok.storage import LocalStorage, Storage

from .record_set import UnitRecords
from .records import OutputFile, UnitRecord
from .unit_files import RECORDS, failure_name, record_name, unit_of_file
from .unit_output import UnitOutput

TEMPORARY = f"{JOB_FOLDER}/tmp"
READERS = 16
READ_AT_ONCE = 4096

T = TypeVar("T")


class OutputFolder:
    """Commits the units of one run of a job.

    Args:
        storage: storage of the output.
        run_name: `run_name` of the run's share, so that runs do not delete each other's attempts.
    """

    def __init__(self, storage: Storage, run_name: str) -> None:
        self.storage = storage
        self._attempts = f"{TEMPORARY}/{run_name}"
        # Actors can outlive a killed driver; a later run must not find their late files.
        self._token = uuid.uuid4().hex[:8]

    def attempt(self, unit: int, number: int) -> str:
        """Folder of the `number`-th attempt at a unit."""
        return f"{self._attempts}/{unit:06d}-{number}-{self._token}"

    def clear_attempts(self) -> set[int]:
        """Delete the attempts of an earlier run of the same name, and return the units that it was working on."""
        left = {int(name.removeprefix(f"{self._attempts}/").partition("-")[0]) for name in self._left_behind()}
        self.storage.remove(self._attempts)
        remove_uploads(self.storage, lambda name: True, below=f"{self._attempts}/")
        return left

    def _left_behind(self) -> list[str]:
        if isinstance(self.storage, LocalStorage):  # empty folders count too: a worker may die before its first file
            folder = self.storage.path / self._attempts
            return [f"{self._attempts}/{path.name}" for path in folder.glob("[0-9]*")]
        return list(self.storage.sizes(self._attempts))

    def clear_unrecorded(self, units: Iterable[int]) -> None:
        """Delete files of earlier attempts at `units`; the next attempt may write other files."""
        numbers = set(units)
        names = self.storage.sizes()
        for name in own_names(names):
            if unit_of_file(name) in numbers:
                self.storage.remove_file(name)
        others = other_outputs(names)
        remove_uploads(self.storage, lambda name: unit_of_file(name) in numbers and not name.startswith(others))

    def write_failure(self, unit: int, details: str) -> str:
        """Store the details of a unit's failure, and return the place."""
        name = failure_name(unit)
        self.storage.write(name, details.encode(errors="replace") + b"\n")
        return f"{self.storage.url}/{name}"

    def commit(self, record: UnitRecord, attempt: str) -> None:
        """Move the files of a unit to their final places, then write its record."""
        for file in record.files:
            try:
                self.storage.move(f"{attempt}/{file.name}", file.name)
            except FileNotFoundError:
                raise CodectokError(
                    f"A worker has written {file.name}, but this machine does not find it in {self.storage.url};"
                    " choose an output that all machines of the cluster reach."
                ) from None
        self.storage.remove(attempt)
        self.storage.write(record_name(record.unit), record.to_json(indent=2) + b"\n")


def clear_temporaries(storage: Storage) -> None:
    """Delete half-written small files of processes that were killed, and what they had uploaded of any file."""
    names = storage.sizes()
    for name in own_names(names):
        if is_half_written(storage, name):
            storage.remove_file(name)
    others = other_outputs(names)

    def is_ours(name: str) -> bool:
        # Other programs may be writing other files into the folder.
        of_job = name.startswith(f"{JOB_FOLDER}/") or unit_of_file(name) is not None
        return of_job and not name.startswith(others)

    remove_uploads(storage, is_ours)


def own_names(names: Iterable[str]) -> list[str]:
    """Leave out the files of other outputs, in folders inside this one that have a job of their own."""
    names = list(names)
    others = other_outputs(names)
    return [name for name in names if not name.startswith(others)] if others else names


def other_outputs(names: Iterable[str]) -> tuple[str, ...]:
    """Starts of the names of files that belong to other outputs, in folders that have a job of their own."""
    before = {name.partition(f"/{JOB_FOLDER}/")[0] for name in names if f"/{JOB_FOLDER}/" in name}
    return tuple(f"{folder}/" for folder in before if folder.split("/")[0] != JOB_FOLDER)


def is_half_written(storage: Storage, name: str) -> bool:
    """True for the temporary name of a small file that no living process holds."""
    path = Path(name)
    # Earlier versions had other names in the job's own folder.
    old = name.startswith(f"{JOB_FOLDER}/") and path.name.startswith(".") and path.suffix == TEMPORARY_SUFFIX
    if not (old or is_temporary(path)):
        return False
    return not (isinstance(storage, LocalStorage) and is_held(storage.path / path))


def check_free(storage: Storage) -> None:
    """Raise an `InputError` if the output folder is a file or holds anything but a job's output."""
    if isinstance(storage, LocalStorage) and storage.path.exists() and not storage.path.is_dir():
        raise InputError(f"{storage.url} is a file; give a folder for the output.")
    names = storage.sizes()
    # Locks exist before the plan does.
    if names and PLAN_FILE not in names and any(not name.startswith(f"{JOB_FOLDER}/") for name in names):
        raise InputError(f"{storage.url} already exists and holds other files; choose another folder.")


def finished_units(storage: Storage, plan: Plan, known: UnitRecords | None = None) -> UnitRecords:
    """Read the records of all complete units.

    Args:
        storage: of the output.
        plan: of the job.
        known: records that this process has written itself; they are not read again.
    """
    sizes = storage.sizes()
    names = [name for name in sizes if name.startswith(f"{RECORDS}/") and name.endswith(".json")]

    def read(name: str) -> UnitRecord | None:
        unit = unit_of_file(name)
        try:
            if known is not None and unit is not None and unit in known:
                return known[unit]
            return UnitRecord.model_validate_json(storage.read(name))
        except (ValidationError, RecursionError):
            return None  # the unit is made again from the plan

    found = UnitRecords()
    for name, record in zip(names, _in_threads(storage, read, names), strict=True):
        if (
            record is not None
            and name == record_name(record.unit)
            and 0 <= record.unit < len(plan.units)
            and all(sizes.get(file.name) == file.bytes for file in record.files)
        ):
            if known is not None and record.unit in known:
                found.take(record.unit, known)
            else:
                found.add(record)
    return found


def _in_threads(storage: Storage, read: Callable[[str], T], names: Sequence[str]) -> Iterator[T]:
    """Read files in their order; some at a time if they are in an object store."""
    if isinstance(storage, LocalStorage):
        yield from map(read, names)
        return
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(names), READ_AT_ONCE):
            yield from pool.map(read, names[start : start + READ_AT_ONCE])


@dataclass(frozen=True)
class MadeUnit:
    """A unit that an attempt has made.

    Attributes:
        record: its record.
        phases: its time in seconds by phase; no output depends on it.
        node: name of the machine; no output depends on it.
    """

    record: UnitRecord
    phases: Mapping[str, float]
    node: str


def run_attempt(run: RunUnit, unit: Unit, storage: Storage, attempt: str) -> MadeUnit:
    """Run a unit in the folder `attempt`; its files are synced to disk when this returns."""
    with storage.staging(attempt) as folder:
        output = UnitOutput(unit, folder)
        for source in unit.crashed:
            _reject_crashed(source, output)
        run(unit, output)
        output.clock.switch(WRITING)
        output.finish_rejects()
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        record = output.record([_synced(path, folder) for path in paths])
    return MadeUnit(record, output.clock.seconds(), socket.gethostname())


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
    """Hash of everything that determines the bytes of a unit."""
    sources = sorted(
        {
            json.dumps([s.dataset, os.fsencode(s.path).hex(), s.size, s.first_byte, s.last_byte, *row_of(s)])
            for s in (*unit.sources, *unit.crashed)
        }
    )
    text = json.dumps([header.verb, header.bytes_version, header.options, sources], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _synced(path: Path, folder: Path) -> OutputFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return OutputFile(name=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=digest)
