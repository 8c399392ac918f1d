"""Status of a job from its files alone: how far it is, who works on it, and which units failed.

Units are counted by the names of their records. The amount of audio is exact for a finished output, and estimated from
some records before, so that the time does not grow with the records that are read. Nothing is written.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from heapq import nsmallest
from typing import Literal

from pydantic import ValidationError

from codectok.errors import InputError
from codectok.names import JOB_FOLDER
from codectok.storage import LocalStorage, Storage, open_storage

from .lock import held_locks
from .output.records import UnitRecord
from .output.run_files import NodeWork, RunFile, RunningUnit, read_run_files, sum_nodes
from .output.summary import SUMMARY_FILE
from .output.unit_files import FAILURES, RECORDS, failure_name, record_name, unit_of_file
from .planning.plan import PLAN_FILE, Plan, load_plan
from .run import FIRST_PASS_FOLDER
from .run_log import weight_of

JobState = Literal["planning", "running", "stopped", "failed units", "complete"]
# A driver without a sign for so long has ended, unless it holds its lock.
ALIVE_SECONDS = 60.0
SAMPLED_RECORDS = 48
SHOWN_FAILURES = 5
ERROR_LENGTH = 300


@dataclass(frozen=True)
class RunStatus:
    """A run of a job or of a share of it.

    Attributes:
        file: last file that its driver wrote.
        alive: True if it still works.
        seconds_since_sign: age of the file.
    """

    file: RunFile
    alive: bool
    seconds_since_sign: float


@dataclass(frozen=True)
class FailedStatus:
    """A unit that failed, and the last line of its error."""

    unit: int
    error: str


@dataclass(frozen=True)
class JobStatus:
    """Status of a job.

    Attributes:
        output: folder or URL.
        verb: of the job; None before its plan is stored.
        state: "stopped" and "failed units" end when the same command runs again.
        planned, done: units.
        failed: number of units that failed and have not been made since.
        failures: some of them.
        input_seconds: audio that the finished units have read.
        is_estimate: True if `input_seconds` was estimated from some of the records.
        runs: the last run of each share, or of the whole.
        first_pass: job that runs before this one over the same sources.
    """

    output: str
    verb: str | None
    state: JobState
    planned: int = 0
    done: int = 0
    failed: int = 0
    failures: tuple[FailedStatus, ...] = ()
    input_seconds: float = 0.0
    is_estimate: bool = False
    runs: tuple[RunStatus, ...] = ()
    first_pass: JobStatus | None = None

    @property
    def is_over(self) -> bool:
        """True if no process works on the job."""
        return self.state not in ("planning", "running")

    @property
    def living(self) -> tuple[RunFile, ...]:
        """Runs at work."""
        return tuple(run.file for run in self.runs if run.alive)

    @property
    def running(self) -> tuple[RunningUnit, ...]:
        """Units at work, the one that began first in front."""
        return tuple(sorted((unit for run in self.living for unit in run.running), key=lambda unit: unit.since))

    @property
    def waiting(self) -> int:
        """Units that no living run will make."""
        return max(0, self.planned - self.done - sum(run.units_left for run in self.living))

    @property
    def speed(self) -> float | None:
        """Seconds of audio that all living runs read in a second; None before they have finished a unit."""
        speeds = [run.speed for run in self.living]
        known = [speed for speed in speeds if speed is not None]
        return sum(known) if known else None

    @property
    def seconds_left(self) -> float | None:
        """Estimated time to the end of the living runs; None if one of them has finished no unit."""
        left = [run.seconds_left for run in self.living]
        known = [seconds for seconds in left if seconds is not None]
        return max(known) if known and len(known) == len(left) else None

    @property
    def nodes(self) -> dict[str, NodeWork]:
        """Work of all runs by machine; units of a killed driver's last seconds are missing."""
        return sum_nodes(nodes for run in self.runs for nodes in (run.file.earlier.nodes, run.file.nodes))

    @property
    def run_seconds(self) -> float:
        """Time of all runs, added."""
        return sum(run.file.updated - run.file.started + run.file.earlier.seconds for run in self.runs)


class JobReader:
    """Reads the status of a job again and again; plan and records that have not changed are read once.

    Args:
        output: folder or URL.
    """

    def __init__(self, output: str | Storage) -> None:
        self._storage = output if isinstance(output, Storage) else open_storage(output)
        self._plan_data: bytes | None = None
        self._plan: Plan | None = None
        self._sizes: dict[int, float] = {}
        self._first_pass: JobReader | None = None

    def read(self) -> JobStatus:
        """Read the status now.

        Raises:
            InputError: the folder holds no job, or a file of the job is damaged.
        """
        storage = self._storage
        held = held_locks(storage)
        plan = self._read_plan()
        if plan is None:
            return self._without_plan(held)
        runs = runs_of(storage, held)
        done = _units_in(storage, RECORDS, len(plan.units))
        failed = sorted(_units_in(storage, FAILURES, len(plan.units)) - done)
        summary = _finished_summary(storage, plan)
        first_pass = self._read_first_pass()
        at_work = bool(held) or any(run.alive for run in runs)
        state: JobState = "failed units" if failed else "stopped"
        if summary is not None and len(done) == len(plan.units):
            state = "complete"
        elif at_work or (first_pass is not None and not first_pass.is_over):
            state = "running"
        input_seconds, is_estimate = summary, False
        if input_seconds is None:
            input_seconds, is_estimate = self._input_seconds(plan, done)
        return JobStatus(
            output=storage.url,
            verb=plan.header.verb,
            state=state,
            planned=len(plan.units),
            done=len(done),
            failed=len(failed),
            failures=tuple(_failure(storage, unit) for unit in failed[:SHOWN_FAILURES]),
            input_seconds=input_seconds,
            is_estimate=is_estimate,
            runs=tuple(runs),
            first_pass=first_pass,
        )

    def _read_plan(self) -> Plan | None:
        try:
            data = self._storage.read(PLAN_FILE)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if data != self._plan_data:
            self._plan, self._plan_data = load_plan(self._storage, {}), data
        return self._plan

    def _without_plan(self, held: Mapping[str, str]) -> JobStatus:
        storage = self._storage
        if not any(storage.sizes(JOB_FOLDER)):
            raise InputError(
                f"{storage.url} holds no job; give the output folder of `shard`, `tokenize` or another job, or of"
                " `train`."
            )
        return JobStatus(storage.url, None, "planning" if held else "stopped")

    def _read_first_pass(self) -> JobStatus | None:
        if self._first_pass is None:
            self._first_pass = JobReader(open_storage(f"{self._storage.url}/{FIRST_PASS_FOLDER}"))
        return self._first_pass.read() if self._first_pass._read_plan() is not None else None

    def _input_seconds(self, plan: Plan, done: Collection[int]) -> tuple[float, bool]:
        """Audio that the units `done` have read, and True if it is an estimate from some of them."""
        sample = nsmallest(SAMPLED_RECORDS, done, key=_pick)
        for unit in sample:
            if unit not in self._sizes:
                seconds = _input_seconds_of(self._storage, unit)
                if seconds is not None:
                    self._sizes[unit] = seconds
        read = [unit for unit in sample if unit in self._sizes]
        if not read:
            return 0.0, bool(done)
        found = sum(self._sizes[unit] for unit in read)
        if len(read) == len(done):
            return found, False
        estimated = weight_of(plan, read)
        return found * weight_of(plan, sorted(done)) / estimated, True


def _pick(unit: int) -> bytes:
    """Order in which units are sampled: random, and the same at each look."""
    return blake2b(str(unit).encode(), digest_size=8).digest()


def _input_seconds_of(storage: Storage, unit: int) -> float | None:
    try:
        return UnitRecord.model_validate_json(storage.read(record_name(unit))).total.input_seconds
    except (FileNotFoundError, ValidationError, RecursionError):
        return None  # the next run makes the unit again


def _units_in(storage: Storage, folder: str, planned: int) -> set[int]:
    """Units of the plan with a file in `folder`."""
    if isinstance(storage, LocalStorage):
        place = storage.path / folder
        names: Sequence[str] = os.listdir(place) if place.is_dir() else ()  # noqa: PTH208 - 100,000 names
        paths = (f"{folder}/{name}" for name in names)
        return {unit for path in paths if (unit := unit_of_file(path)) is not None and unit < planned}
    return {unit for path in storage.sizes(folder) if (unit := unit_of_file(path)) is not None and unit < planned}


def runs_of(storage: Storage, held: Mapping[str, str]) -> list[RunStatus]:
    """Read the files of the last runs; `held` are the locks that are held, with their holders."""
    now, here = time.time(), socket.gethostname()
    runs = []
    for file in read_run_files(storage):
        silent = max(0.0, now - file.updated)
        alive = silent < ALIVE_SECONDS
        if isinstance(storage, LocalStorage):
            # The lock of a process on this machine is certain; some file systems show no locks of other machines.
            # A killed run may have left the file while the next one already holds the lock.
            alive = held.get(file.name) == file.process or (alive and file.host != here)
        runs.append(RunStatus(file, alive and file.ended is None, silent))
    return runs


def _finished_summary(storage: Storage, plan: Plan) -> float | None:
    """Audio that a finished job has read; None if it is not finished."""
    try:
        found = json.loads(storage.read(SUMMARY_FILE))
        seconds = float(found["total"]["input_seconds"])
        return seconds if found["plan"] == plan.header.hash else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None  # the next run writes it again


def _failure(storage: Storage, unit: int) -> FailedStatus:
    try:
        lines = storage.read(failure_name(unit)).decode(errors="replace").split("\n")
    except FileNotFoundError:
        lines = []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return FailedStatus(unit, last[:ERROR_LENGTH])
