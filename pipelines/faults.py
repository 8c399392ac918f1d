"""What a job does about workers that die and units that fail.

A decoder can take its whole process down. Which file does it is found in child processes, whose end says whether they
crashed or were killed from outside: a file is rejected only when it alone crashes a fresh process three times.
"""

from __future__ import annotations

import errno
import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from codectok.errors import CodectokError
from codectok.storage import Storage

from .job import WORKER_THREADS, Job, UnitRecord
from .output import run_attempt
from .plan import Unit
from .sources import Source

ATTEMPTS = 3
CRASH_SIGNALS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}
# No use in trying again: the next unit would fail in the same way.
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class FailedUnit:
    """A unit that could not be made; the job goes on with the others."""

    unit: int
    message: str


def stops_the_job(error: BaseException) -> bool:
    """Whether an error in a unit is one of the whole job."""
    if isinstance(error, CodectokError):
        return True
    return isinstance(error, OSError) and error.errno in FULL_DISK


def describe(error: BaseException) -> str:
    """An unexpected error in a few words."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def run_despite_crashes(job: Job, unit: Unit, storage: Storage, attempt: str) -> UnitRecord:
    """Make a unit in child processes, without the sources that crash them.

    Raises:
        CodectokError: it crashes though none of its sources does so alone, or it is killed from outside each time.
    """
    crashed: list[Source] = []
    unexplained = 0
    while True:
        outcome = _run_in_child(job, unit, storage, attempt, crashed)
        if isinstance(outcome, UnitRecord):
            return outcome
        culprit = _find_culprit(job, unit, storage, attempt, [s for s in unit.sources if s not in crashed])
        if culprit is not None:
            crashed.append(culprit)
            continue
        unexplained += 1
        if unexplained == ATTEMPTS:
            raise CodectokError(f"Unit {unit.number} crashed {ATTEMPTS} times, though no source of it does so alone.")


@dataclass(frozen=True)
class _Crash:
    """A child process has crashed."""


def _find_culprit(job: Job, unit: Unit, storage: Storage, attempt: str, suspects: Sequence[Source]) -> Source | None:
    """The first of `suspects` that crashes a process alone, found by halving."""

    def crashes(sources: Sequence[Source]) -> bool:
        probe = f"{attempt}-probe"
        outcome = _run_in_child(job, Unit(unit.number, tuple(sources), unit.split), storage, probe, [])
        storage.remove(probe)
        return isinstance(outcome, _Crash)

    if len(suspects) == 1:
        return suspects[0] if all(crashes(suspects) for _ in range(ATTEMPTS)) else None
    middle = len(suspects) // 2
    for half in (suspects[:middle], suspects[middle:]):
        if half and crashes(half):
            return _find_culprit(job, unit, storage, attempt, half)
    return None


def _run_in_child(
    job: Job, unit: Unit, storage: Storage, attempt: str, crashed: Sequence[Source]
) -> UnitRecord | _Crash:
    import ray.cloudpickle as cloudpickle

    task = cloudpickle.dumps((job, unit, storage, attempt, tuple(crashed)))
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
    raise CodectokError(
        f"Unit {unit.number} was killed from outside {ATTEMPTS} times, the last by signal {-child.returncode};"
        " is there too little memory?"
    )


_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.buffer.readline());"
    " from codectok.pipelines.faults import run_child; run_child()"
)


def run_child() -> None:
    """What a child process does: one attempt, whose outcome goes to standard output."""
    results = sys.stdout.buffer
    sys.stdout = sys.stderr  # a library that prints must not mix its words into the outcome
    outcome: UnitRecord | Exception
    try:
        job, *attempt = pickle.load(sys.stdin.buffer)
        torch.set_num_threads(WORKER_THREADS)
        job.set_up()
        outcome = run_attempt(job, *attempt)
    except Exception as error:
        outcome = error
    results.write(pickle.dumps(outcome))
    results.flush()
