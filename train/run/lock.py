"""The lock of a run's output folder: one training at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from codectok.errors import InputError

LOCK_FILE = ".lock"
# A rank that was killed holds its lock until the system has ended it.
LOCK_SECONDS = 30.0
POLL_SECONDS = 0.2

log = logging.getLogger(__name__)


@contextmanager
def locked_output(output: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which ends with the process that holds it.

    Folders on a file system without locks are not locked.

    Raises:
        InputError: another training holds it.
    """
    with (output / LOCK_FILE).open("a") as file:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _lock(file.fileno()):
            if time.monotonic() + LOCK_SECONDS - deadline < POLL_SECONDS:
                log.warning("Another training uses %s; waiting %g s for its end.", output, LOCK_SECONDS)
            if time.monotonic() > deadline:
                raise InputError(f"Another training uses {output}; wait for its end, or choose another output.")
            time.sleep(POLL_SECONDS)
        yield


def is_locked(output: Path) -> bool | None:
    """Return True if a training holds the lock of `output`; None if that cannot be known."""
    try:
        descriptor = os.open(output / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    else:
        return False
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
