"""Processes of workers of jobs on Ray, by the names that Ray gives them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from .killing import descendants

# The method that runs follows, and nothing between two calls.
WORKER = "ray::Worker"
RUNNING, LOADING = f"{WORKER}.run", (f"{WORKER}.__init__", f"{WORKER}.start")


def name_of(process: int) -> str:
    """Command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def workers_below(process: int) -> dict[int, str]:
    """Names of workers that `process` has started, by their numbers."""
    names = {one: name_of(one) for one in descendants(process)}
    return {one: name for one, name in names.items() if name.startswith(WORKER)}


def stop_in_units(process: int) -> set[int]:
    """Stop the workers that `process` has started and that run a unit, and return them."""
    stopped = set()
    for worker, name in workers_below(process).items():
        if name.startswith(RUNNING) and _is_sent(worker, signal.SIGSTOP):
            if name_of(worker).startswith(RUNNING):
                stopped.add(worker)
            else:  # its unit ended in between
                _is_sent(worker, signal.SIGCONT)
    return stopped


def jobs_of(workers: set[int]) -> set[bytes]:
    """Numbers that Ray has given to the jobs of workers."""
    found = set()
    for worker in workers:
        variables = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
        found |= {variable for variable in variables if variable.startswith(b"RAY_JOB_ID=")}
    return found


def continue_all(processes: set[int]) -> None:
    """Let stopped processes continue; some may have ended."""
    for process in processes:
        _is_sent(process, signal.SIGCONT)


def _is_sent(process: int, number: signal.Signals) -> bool:
    with suppress(ProcessLookupError):
        os.kill(process, number)
        return True
    return False
