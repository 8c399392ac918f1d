"""What a job does about workers that die and units that fail.

A decoder can take its whole process down. Which file does it is found in child processes, whose end says whether they
crashed or were killed from outside: a file is rejected only when it alone crashes a fresh process three times.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from codectok.errors import AudioError, CodectokError
from codectok.sources.clips import clips_of
from codectok.sources.kinds import CONTAINERS
from codectok.sources.source import Source
from codectok.storage import Storage

from .job import Job, UnitRecord
from .output import run_attempt
from .plan import Unit

ATTEMPTS = 3
PARENT_POLL_SECONDS = 1.0
CRASH_SIGNALS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}
# No use in trying again: the next unit would fail in the same way.
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM}


# What is done in a child process.
Step = Callable[[Job, Unit, Storage, str], UnitRecord | None]


@dataclass(frozen=True)
class FailedUnit:
    """A unit that could not be made; the job goes on with the others.

    Attributes:
        unit: its number.
        message: why.
        details: for whoever looks into it.
        lasting: whether another try will fail as well.
    """

    unit: int
    message: str
    details: str = ""
    lasting: bool = False


class UnitError(CodectokError):
    """A unit cannot be made, which says nothing of the others."""


class LastingUnitError(UnitError):
    """A unit cannot be made, and never will be: its sources and options decide that."""


def stops_the_job(error: BaseException) -> bool:
    """Whether an error in a unit is one of the whole job."""
    if isinstance(error, CodectokError):
        return not isinstance(error, UnitError | AudioError)
    return isinstance(error, OSError) and error.errno in FULL_DISK


def describe(error: BaseException) -> str:
    """An error in a few words; one of ours has them."""
    if isinstance(error, CodectokError):
        return str(error).rstrip(".")
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def run_despite_crashes(job: Job, unit: Unit, storage: Storage, attempt: str) -> UnitRecord:
    """Make a unit in child processes, without the sources that crash them.

    Raises:
        UnitError: it crashes though none of its sources does so alone, or it is killed from outside each time.
    """
    unit, record = _made_without_crash(job, unit, storage, attempt, run_attempt)
    assert isinstance(record, UnitRecord), "that is what an attempt gives"
    return record


def without_crashing_sources(job: Job, unit: Unit, storage: Storage, attempt: str) -> Unit:
    """The unit without those of its sources that crash a child process in which `job` rehearses; else the same."""
    return _made_without_crash(job, unit, storage, attempt, _rehearse)[0]


def _rehearse(job: Job, unit: Unit, storage: Storage, attempt: str) -> None:
    job.rehearse(unit)


def _made_without_crash(
    job: Job, unit: Unit, storage: Storage, attempt: str, step: Step
) -> tuple[Unit, UnitRecord | None]:
    unexplained = 0
    while True:
        outcome = _run_in_child(job, unit, storage, attempt, step)
        if not isinstance(outcome, _Crash):
            return unit, outcome
        culprit = _find_culprit(job, unit, storage, attempt, step, _files(unit))
        if culprit is not None:
            unit = unit.without(culprit)
            continue
        unexplained += 1
        if unexplained == ATTEMPTS:
            raise UnitError(f"Unit {unit.number} crashed {ATTEMPTS} times, though no source of it does so alone.")


@dataclass(frozen=True)
class _Crash:
    """A child process has crashed."""


# Spans of one file, which are decoded together; or some clips of a container.
Suspect = tuple[Source, ...]


def _files(unit: Unit) -> list[Suspect]:
    found: list[Suspect] = []
    for source in unit.sources:
        if found and source.kind not in CONTAINERS and found[-1][0].same_file(source):
            found[-1] += (source,)
        else:
            found.append((source,))
    return found


def _find_culprit(
    job: Job, unit: Unit, storage: Storage, attempt: str, step: Step, suspects: Sequence[Suspect]
) -> Suspect | None:
    """The first of `suspects` that crashes a process alone, found by halving."""

    def crashes(some: Sequence[Suspect]) -> bool:
        probe = f"{attempt}-probe"
        sources = tuple(source for suspect in some for source in suspect)
        outcome = _run_in_child(job, Unit(unit.number, sources, unit.split), storage, probe, step)
        storage.remove(probe)
        return isinstance(outcome, _Crash)

    if len(suspects) == 1:
        halves = [[half] for half in _halves(suspects[0])]
        if not halves:
            return suspects[0] if all(crashes(suspects) for _ in range(ATTEMPTS)) else None
    else:
        middle = len(suspects) // 2
        halves = [list(suspects[:middle]), list(suspects[middle:])]
    for half in halves:
        if crashes(half):
            return _find_culprit(job, unit, storage, attempt, step, half)
    return None


def _halves(suspect: Suspect) -> list[Suspect]:
    """The halves of a container; none of what is one clip."""
    source = suspect[0]
    if source.kind not in CONTAINERS:
        return []
    first = source.first_clip
    count = sum(1 for _ in clips_of(source))
    if count < 2:
        return []
    middle, end = first + count // 2, first + count
    return [(replace(source, first_clip=a, last_clip=b),) for a, b in ((first, middle), (middle, end))]


def _run_in_child(job: Job, unit: Unit, storage: Storage, attempt: str, step: Step) -> UnitRecord | _Crash | None:
    import ray.cloudpickle as cloudpickle

    task = cloudpickle.dumps((step, job, unit, storage, attempt))
    path = json.dumps(sys.path).encode() + b"\n"
    for _ in range(ATTEMPTS):
        storage.remove(attempt)
        child = subprocess.run([sys.executable, "-c", _CHILD], input=path + task, capture_output=True, check=False)
        if child.returncode == 0:
            outcome = pickle.loads(child.stdout)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome
        # A library that ends the process itself crashes it as well.
        if child.returncode > 0 or -child.returncode in CRASH_SIGNALS:
            return _Crash()
    raise UnitError(
        f"Unit {unit.number} was killed from outside {ATTEMPTS} times, the last by signal {-child.returncode};"
        " is there too little memory?"
    )


_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.buffer.readline());"
    " from codectok.pipelines.engine.faults import run_child; run_child()"
)


def run_child() -> None:
    """What a child process does: one attempt, whose outcome goes to standard output."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    results = sys.stdout.buffer
    sys.stdout = sys.stderr  # a library that prints must not mix its words into the outcome
    outcome: UnitRecord | Exception | None
    try:
        step, job, *attempt = pickle.load(sys.stdin.buffer)
        torch.set_num_threads(job.threads)
        if step is run_attempt:
            job.set_up()
        outcome = step(job, *attempt)
    except Exception as error:
        outcome = error
    results.write(pickle.dumps(outcome))
    results.flush()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    os._exit(1)
