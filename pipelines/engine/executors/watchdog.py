"""Program that ends the processes of a Ray once the process that started it is gone.

`kill -9` gives a driver no time to end its Ray, and the system ends only its direct children. This program runs in a
session of its own, and finds the processes by a variable in their environment, which they inherit from the driver.
It imports the standard library only, so that it starts in milliseconds.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Variable that marks the processes of one Ray.
OWNER = "CODECTOK_RAY_OWNER"
PARENT_POLL_SECONDS = 0.5
TERM_SECONDS = 2.0
# Nothing outlives the driver longer than this.
END_SECONDS = 9.0
END_POLL_SECONDS = 0.2


def main(owner: str, parent: int) -> None:
    """Wait until the process `parent` ends or closes standard input, then end all processes of `owner`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # A forked child of the driver may hold the other end of the pipe open, so that the parent is compared as well.
    while os.getppid() == parent and not select.select([sys.stdin], [], [], PARENT_POLL_SECONDS)[0]:
        pass
    end_processes(owner)


def end_processes(owner: str) -> None:
    """End the processes of `owner`: ask them to end, and kill the ones that do not."""
    started = time.monotonic()
    asked: set[int] = set()
    while time.monotonic() - started < END_SECONDS:
        found = processes_of(owner)
        if not found:
            return
        if time.monotonic() - started > TERM_SECONDS:
            kill(found)
        else:
            kill(found - asked, signal.SIGTERM)
        asked |= found
        time.sleep(END_POLL_SECONDS)


def kill(processes: set[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to processes, of which some may have ended."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def processes_of(owner: str) -> set[int]:
    """Return the ids of the processes that `owner` marks."""
    mark = f"{OWNER}={owner}"
    found = _in_proc(mark) if Path("/proc/self/environ").exists() else _in_list_of_processes(mark)
    return set(found) - {os.getpid()}


def _in_proc(mark: str) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # of other users, or ended meanwhile
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)


def _in_list_of_processes(mark: str) -> Iterator[int]:
    """Find the processes with `ps`, which shows environments of the same user on BSD and macOS."""
    options = ["-axEww"] if sys.platform == "darwin" else ["axeww"]
    listed = subprocess.run(["ps", *options, "-o", "pid=,command="], capture_output=True, check=False).stdout
    for line in listed.splitlines():
        number, _, command = line.strip().partition(b" ")
        if mark.encode() in command.split(b" "):
            yield int(number)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
