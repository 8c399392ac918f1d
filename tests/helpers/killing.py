"""Runs `codectok` in forked processes, and kills them at moments that are picked by changes on the disk.

A process is killed either exactly before its n-th change of a file below a folder (an audit hook of Python counts
them), or just after the n-th name has appeared there or gone (seen from outside, which also hits libraries while they
write).
"""

from __future__ import annotations

import ctypes
import fnmatch
import mmap
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Target = Literal["driver", "worker", "group"]

POLL_SECONDS = 0.001
# The longest wait after a name has appeared.
DELAY_SECONDS = 0.02
# Names of the moments by the path that appears or goes; the first that fits.
PATTERNS = {
    "first pass": "*/first-pass/*",
    "attempt": "*/_codectok/tmp*",
    "lock": "*/_codectok/locks*",
    "record": "*/_codectok/records*",
    "rejects": "*/_codectok/rejects*",
    "plan": "*/_codectok/plan*",
    "index": "*/index*",
    "checkpoint": "*/checkpoints*",
    "temporary": "*.tmp*",
    "part or shard": "*/[ps][ah]*-0*",
}
CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "os.chmod", "shutil.rmtree", "fcntl.flock"}
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Moment:
    """A moment to kill: before the `number`-th change of a file, or after the `number`-th name appears or goes."""

    kind: Literal["before a change", "after a name"]
    number: int
    delay: float = 0.0
    target: Target = "driver"


@dataclass
class Finished:
    """End of a process: its exit status, negative for a signal, and the moment at which it was killed, if it was."""

    status: int
    killed_at: str | None = None
    changes: int = 0
    names: int = 0
    log: str = ""
    survivors: set[int] = field(default_factory=set)


def adopt_orphans() -> None:
    """Become the parent of processes whose parents are killed, so that they can be found and ended."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kind_of_name(path: str) -> str:
    """Name of the moment at which `path` appears or goes."""
    return next((name for name, pattern in PATTERNS.items() if fnmatch.fnmatch(path, pattern)), "other")


def run_and_kill(main: Callable[[], object], folder: Path, log: Path, moment: Moment | None) -> Finished:
    """Run `main` in a forked process that writes to `folder`, and kill it at `moment`; wait until it has ended."""
    counter = mmap.mmap(-1, 8)
    before = moment.number if moment is not None and moment.kind == "before a change" else None
    process = os.fork()
    if process == 0:
        _run_child(main, folder, log, counter, before, moment)
    watcher = _Watcher(folder)
    killed_at: str | None = None
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            break
        appeared = watcher.look()
        waiting = moment is not None and moment.kind == "after a name" and killed_at is None
        if moment is not None and waiting and watcher.count >= moment.number:
            time.sleep(moment.delay)
            if _kill(process, moment.target):
                killed_at = kind_of_name(appeared or "")
        time.sleep(POLL_SECONDS)
    code = os.waitstatus_to_exitcode(status)
    if before is not None and code == -signal.SIGKILL:
        killed_at = "before a change"
    changes = int.from_bytes(counter[:8], "little")
    text = log.read_text(errors="replace") if log.exists() else ""
    return Finished(code, killed_at, changes, watcher.count, text, descendants(os.getpid()))


def _run_child(
    main: Callable[[], object], folder: Path, log: Path, counter: mmap.mmap, before: int | None, moment: Moment | None
) -> None:
    status = 70
    try:
        os.setsid()
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.addaudithook(_hook(folder, counter, before, moment))
        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _hook(
    folder: Path, counter: mmap.mmap, before: int | None, moment: Moment | None
) -> Callable[[str, tuple[Any, ...]], None]:
    root, owner = str(folder), os.getpid()
    count = 0

    def changes(event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return False
        elif event not in CHANGES:
            return False
        path = arguments[0]
        if isinstance(path, int):  # a descriptor
            return event == "fcntl.flock"
        text = os.fsdecode(path) if isinstance(path, bytes | str | os.PathLike) else ""
        # Names relative to a descriptor of a folder come from `shutil.rmtree`.
        return text.startswith(root) or f"/.{folder.name}." in text or not text.startswith("/")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if os.getpid() != owner or not changes(event, arguments):
            return
        count += 1
        counter[:8] = count.to_bytes(8, "little")
        if count == before:
            if moment is not None and moment.target == "group":
                os.killpg(0, signal.SIGKILL)
            os.kill(owner, signal.SIGKILL)

    return hook


class _Watcher:
    """Counts names that appear in a folder, or go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[str] = set()
        self.count = 0
        self.look()
        self.count = 0

    def look(self) -> str | None:
        """Look again, and return one of the names that have appeared or gone."""
        now: set[str] = set()
        for parent, folders, files in os.walk(self._folder):
            now.update(f"{parent}/{name}" for name in (*folders, *files))
        for name in self._names_beside():
            now.add(name)
        changed = now ^ self._known
        self._known = now
        self.count += len(changed)
        return min(changed) if changed else None

    def _names_beside(self) -> list[str]:
        return [str(path) for path in self._folder.parent.iterdir() if path.name.startswith(f".{self._folder.name}.")]


def _kill(process: int, target: Target) -> bool:
    """Kill `process`, one of its workers, or its group; False if it has no worker."""
    if target == "group":
        os.killpg(process, signal.SIGKILL)
    elif target == "driver":
        os.kill(process, signal.SIGKILL)
    else:
        workers = [child for child in descendants(process) if is_worker(child)]
        if not workers:
            return False
        os.kill(max(workers), signal.SIGKILL)
    return True


def is_worker(process: int) -> bool:
    """True for a process that does work of ours: not for the processes of Ray itself."""
    command = _read(f"/proc/{process}/cmdline")
    return "ray::" in command or "codectok" in command or "multiprocessing" in command


def descendants(process: int) -> set[int]:
    """Processes below `process`."""
    parents = {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            fields = _read(f"{path}/stat").rpartition(")")[2].split()
            if len(fields) > 1 and fields[0] != "Z":
                parents[int(path.name)] = int(fields[1])
    found = {process}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found - {process}
        found |= more


def end_processes(processes: set[int]) -> None:
    """Kill `processes`, and collect the ones that are ours to collect."""
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    while True:
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not found:
            return


def pick_moment(pick: random.Random, changes: int, names: int, targets: Sequence[Target]) -> Moment:
    """Pick a moment among `changes` of files and `names`, as a whole run has them."""
    target = pick.choice(list(targets))
    if target != "worker" and pick.random() < 0.5:
        return Moment("before a change", pick.randint(1, max(1, changes)), target=target)
    delay = pick.choice([0.0, pick.uniform(0, DELAY_SECONDS)])
    return Moment("after a name", pick.randint(1, max(1, names)), delay, target)


@dataclass
class Kills:
    """Counts of kills of one verb: by moment, and by target."""

    moments: Counter[str] = field(default_factory=Counter)
    targets: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """All kills."""
        return sum(self.moments.values())


def _read(path: str) -> str:
    try:
        return Path(path).read_bytes().decode(errors="replace")
    except OSError:
        return ""
