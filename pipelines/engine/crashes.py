"""Finds the sources that crash their decoder, by running units in child processes.

A decoder can take its whole process down. The exit status of a child process tells if it crashed or was killed from
outside. A file is rejected only after it alone has crashed three fresh processes.
"""

from __future__ import annotations

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
from functools import partial
from typing import Any, Generic, TypeVar

import torch

from codectok.errors import described
from codectok.pipelines.engine.output.folder import MadeUnit, run_attempt
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.clips import clips_of
from codectok.sources.kinds import CONTAINERS
from codectok.sources.source import Source
from codectok.storage import Storage

from .faults import ATTEMPTS, UnitError
from .job import Job, WorkerContext

PARENT_POLL_SECONDS = 1.0
# Written by a child after its imports: an earlier exit is not a crash of a source.
READY = b"ready\n"
CRASH_SIGNALS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}

Result = TypeVar("Result")

Suspect = tuple[Source, ...]
"""Spans of one file, which are decoded together, or some clips of a container."""


def run_despite_crashes(job: Job, context: WorkerContext, unit: Unit, attempt: str) -> MadeUnit:
    """Run a unit in child processes, without the sources that crash them.

    Raises:
        UnitError: the unit crashes although none of its sources does so alone, or each attempt is killed from outside.
    """
    return _Children(partial(_run, job, context), job.threads, context.output, attempt).run(unit)[1]


def without_crashing_sources(job: Job, storage: Storage, unit: Unit, attempt: str) -> Unit:
    """Move the sources that crash the probe of the job's server to the crashed ones of the unit."""
    server = job.server
    if server is None:
        return unit
    return _Children(partial(_probe, server.probe), job.threads, storage, attempt).run(unit)[0]


def _run(job: Job, context: WorkerContext, unit: Unit, attempt: str) -> MadeUnit:
    return run_attempt(job.start(context), unit, context.output, attempt)


def _probe(probe: Callable[[Unit], None], unit: Unit, attempt: str) -> None:
    probe(unit)


@dataclass(frozen=True)
class _Crash:
    """A child process crashed."""


@dataclass(frozen=True)
class _Children(Generic[Result]):
    """Runs a step for a unit in child processes.

    Attributes:
        step: called in the child with the unit and the folder of the attempt.
        threads: torch's threads in the child.
        storage: storage of the attempts.
        attempt: folder of the attempt.
    """

    step: Callable[[Unit, str], Result]
    threads: int
    storage: Storage
    attempt: str

    def run(self, unit: Unit) -> tuple[Unit, Result]:
        """Run the step until it does not crash; returns the unit without crashing sources, and the step's result."""
        unexplained = 0
        while True:
            outcome = self._run_once(unit, self.attempt)
            if not isinstance(outcome, _Crash):
                return unit, outcome
            culprit = self._find_culprit(unit, _suspects(unit))
            if culprit is not None:
                unit = unit.without(culprit)
                continue
            unexplained += 1
            if unexplained == ATTEMPTS:
                raise UnitError(f"Unit {unit.number} crashed {ATTEMPTS} times, though no source of it does so alone.")

    def _find_culprit(self, unit: Unit, suspects: Sequence[Suspect]) -> Suspect | None:
        """The first of `suspects` that crashes a process alone, found by halving."""
        if len(suspects) == 1:
            halves = [[half] for half in self._halves(unit, suspects[0])]
            if not halves:
                return suspects[0] if all(self._crashes(unit, suspects) for _ in range(ATTEMPTS)) else None
        else:
            middle = len(suspects) // 2
            halves = [list(suspects[:middle]), list(suspects[middle:])]
        for half in halves:
            if self._crashes(unit, half):
                return self._find_culprit(unit, half)
        return None

    def _halves(self, unit: Unit, suspect: Suspect) -> list[Suspect]:
        """Halves of a container; empty for a single clip, and for a container that crashes its reader."""
        source = suspect[0]
        if source.kind not in CONTAINERS:
            return []
        # In a child as well: it may be the container that crashes, not one of its clips.
        counting = _Children(_count_clips, self.threads, self.storage, f"{self.attempt}-probe")
        count = counting._run_once(Unit(unit.number, (source,), unit.split), counting.attempt)
        if isinstance(count, _Crash) or count < 2:
            return []
        first = source.first_clip
        middle, end = first + count // 2, first + count
        return [(replace(source, first_clip=a, last_clip=b),) for a, b in ((first, middle), (middle, end))]

    def _crashes(self, unit: Unit, suspects: Sequence[Suspect]) -> bool:
        probe = f"{self.attempt}-probe"
        sources = tuple(source for suspect in suspects for source in suspect)
        outcome = self._run_once(Unit(unit.number, sources, unit.split), probe)
        self.storage.remove(probe)
        return isinstance(outcome, _Crash)

    def _run_once(self, unit: Unit, attempt: str) -> Result | _Crash:
        import ray.cloudpickle as cloudpickle

        dumps: Callable[[object], bytes] = cloudpickle.dumps
        task = dumps((self.threads, self.step, unit, attempt))
        path = json.dumps(sys.path).encode() + b"\n"
        for _ in range(ATTEMPTS):
            self.storage.remove(attempt)
            command = [sys.executable, "-c", _CHILD, str(os.getpid())]
            child = subprocess.run(command, input=path + task, capture_output=True, check=False)
            is_ready, results = child.stdout.startswith(READY), child.stdout.removeprefix(READY)
            if child.returncode == 0:
                outcome: Any = pickle.loads(results)
                if isinstance(outcome, BaseException):
                    raise outcome
                result: Result = outcome
                return result
            # A library that exits crashes the process as well.
            if is_ready and (child.returncode > 0 or -child.returncode in CRASH_SIGNALS):
                return _Crash()
            if child.returncode > 0:
                reason = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
                raise UnitError(f"A process for unit {unit.number} could not start: {reason.rstrip('.')}.")
        raise UnitError(
            f"Unit {unit.number} was killed from outside {ATTEMPTS} times, the last by signal {-child.returncode};"
            " is there too little memory?"
        )


def _suspects(unit: Unit) -> list[Suspect]:
    found: list[Suspect] = []
    for source in unit.sources:
        if found and source.kind not in CONTAINERS and found[-1][0].same_file(source):
            found[-1] += (source,)
        else:
            found.append((source,))
    return found


def _count_clips(unit: Unit, attempt: str) -> int:
    return sum(1 for source in unit.sources for _ in clips_of(source))


_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.buffer.readline());"
    " from codectok.pipelines.engine.crashes import run_child; run_child(int(sys.argv[1]))"
)


def run_child(parent: int) -> None:
    """Run one step in a child process of the process `parent`, and write its result or error to standard output."""
    # The parent may have died while this process was importing its modules.
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    results = sys.stdout.buffer
    sys.stdout = sys.stderr  # text that a library prints must not mix with the result
    outcome: object
    try:
        threads, step, unit, attempt = pickle.load(sys.stdin.buffer)
        torch.set_num_threads(threads)
        results.write(READY)
        results.flush()
        outcome = step(unit, attempt)
    except Exception as error:
        outcome = error
    try:
        pickled = pickle.dumps(outcome)
        pickle.loads(pickled)
    except Exception as error:  # an exception may hold anything
        pickled = pickle.dumps(UnitError(f"{described(outcome if isinstance(outcome, Exception) else error)}."))
    results.write(pickled)
    results.flush()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    os._exit(1)
