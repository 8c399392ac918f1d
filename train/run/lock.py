"""The lock of a run's output folder: one training at a time."""

from __future__ import annotations

import fcntl
import logging
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from codectok.errors import PassingError

LOCK_FILE = ".lock"
# Time that a file server keeps the lock of a machine that is gone, and more than a killed process needs to end.
LOCK_SECONDS, POLL_SECONDS = 120.0, 0.05
# `status` holds the lock for a moment when it looks at it.
LOOK_SECONDS = 0.2

log = logging.getLogger(__name__)


class OutputLock:
    """Context manager that holds the lock of a run's folder, until it is left or its process ends.

    Folders on a file system without locks are not locked.

    Raises:
        PassingError: another training holds it.
    """

    def __init__(self, output: Path) -> None:
        output.mkdir(parents=True, exist_ok=True)
        self._file = (output / LOCK_FILE).open("a+")
        started, is_told = time.monotonic(), False
        while not _lock(self._file.fileno()):
            waited = time.monotonic() - started
            if waited > LOCK_SECONDS:
                self._file.close()
                raise PassingError(f"Another training uses {output}; wait for its end, or choose another output.")
            if waited > LOOK_SECONDS and not is_told:
                log.warning("Another training uses %s; waiting at most %g s for its end.", output, LOCK_SECONDS)
                is_told = True
            time.sleep(POLL_SECONDS)
        self._file.truncate(0)
        self._file.write(socket.gethostname())
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Also if a forked process still has the file.
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()


def is_locked(output: Path) -> bool | None:
    """Return True if a training holds the lock of `output`; None if that cannot be known on this machine."""
    try:
        with (output / LOCK_FILE).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            # Some file systems keep the locks of each machine apart.
            return False if file.read() == socket.gethostname() else None
    except OSError:
        return None


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
