"""Runs damaged inputs in forked children that are watched: output, end, time and memory."""

from __future__ import annotations

import faulthandler
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HANG_SECONDS = 30.0
MEMORY_BYTES = 2 << 30
# A child may map this much more than its parent: it must not take the machine down.
FUSE_BYTES = 8 << 30
POLL_SECONDS = 0.005
OUTPUT, CASE, VERDICT = "output", "case", "verdict"
MEMORY_ERRORS = re.compile(r"MemoryError|bad_alloc|Cannot allocate|not enough memory|realloc of size|malloc of size")

Check = Callable[[Path, int], tuple[str, str]]
"""Called in a child with its folder and the number of a mutation; returns a verdict and a remark."""


@dataclass(frozen=True)
class Outcome:
    """End of a child: number and description of its mutation, its verdict, a remark, and its costs."""

    number: int
    case: str
    verdict: str
    remark: str
    seconds: float
    peak_bytes: int


def run_all(check: Check, numbers: Iterator[int], folder: Path, processes: int, deadline: float) -> Iterator[Outcome]:
    """Run `check` on `numbers` in forked children, several at a time, until the `deadline` (monotonic)."""
    running: dict[int, tuple[int, float, Path]] = {}
    more = True
    while more or running:
        while more and len(running) < processes:
            number = next(numbers, None) if time.monotonic() < deadline else None
            if number is None:
                more = False
                break
            place = folder / f"case-{number}"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            running[_fork(check, place, number)] = (number, time.monotonic(), place)
        yield from _ended(running)
        time.sleep(POLL_SECONDS)


def _ended(running: dict[int, tuple[int, float, Path]]) -> Iterator[Outcome]:
    for pid, (number, started, place) in list(running.items()):
        seconds = time.monotonic() - started
        done, status, usage = os.wait4(pid, os.WNOHANG)
        hung = not done and seconds > HANG_SECONDS
        if hung:
            os.killpg(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
        if not done and not hung:
            continue
        del running[pid]
        yield _outcome(number, place, status, seconds, usage.ru_maxrss * 1024, hung)
        shutil.rmtree(place, ignore_errors=True)


def _outcome(number: int, place: Path, status: int, seconds: float, peak: int, hung: bool) -> Outcome:
    case, output, verdict = (_text(place / name) for name in (CASE, OUTPUT, VERDICT))
    kind, _, remark = verdict.partition("\n")
    if hung:
        kind, remark = "hang", _end(output)
    elif not kind or os.waitstatus_to_exitcode(status):
        kind, remark = "died", f"status {os.waitstatus_to_exitcode(status)}: {_end(output)}"
    elif "Traceback (most recent call last)" in output:
        kind, remark = "traceback", _end(output)
    if MEMORY_ERRORS.search(output) or peak > MEMORY_BYTES:
        kind, remark = "memory", f"{peak >> 20} MB: {_end(output)}"
    return Outcome(number, case, kind, remark, seconds, peak)


def _fork(check: Check, place: Path, number: int) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setpgid(0, 0)
        output = os.open(place / OUTPUT, os.O_CREAT | os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + FUSE_BYTES, mapped + FUSE_BYTES))
        faulthandler.dump_traceback_later(HANG_SECONDS - 2)  # says where it hangs
        verdict, remark = check(place, number)
        faulthandler.cancel_dump_traceback_later()
        sys.stdout.flush()
        sys.stderr.flush()
        (place / VERDICT).write_text(f"{verdict}\n{remark}")
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(99)


@contextmanager
def quiet() -> Iterator[None]:
    """Discard the standard output of this process."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def codectok(*arguments: object) -> int:
    """Run `codectok` in this process, print an unexpected exception as Python does, and return the exit code."""
    from codectok.cli.main import app

    print("$ codectok", *arguments, flush=True)
    try:
        app([str(argument) for argument in arguments], prog_name="codectok")
    except SystemExit as ended:
        sys.stdout.flush()
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _end(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    stack = next((number for number, line in enumerate(lines) if "most recent call first" in line), None)
    lines = lines if stack is None else lines[: stack + 6]
    commands = [line for line in lines if line.startswith("$ ")]
    return " | ".join([*commands[-1:], *[line[:300] for line in lines[-6:]]])
