"""Locks on an output folder: one job at a time, or the different parts of one job beside each other.

On a disk a lock is `flock`, which ends with its process; in an object store it is a lease that its holder renews.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Self

from codectok.errors import CodectokError, InputError
from codectok.sources.listing import JOB_FOLDER
from codectok.storage import LocalStorage, Storage

LOCKS = f"{JOB_FOLDER}/locks"
RENEW_SECONDS = 15.0
LEASE_SECONDS = 90.0
ENTRY_POLL_SECONDS = 0.2
SETTLE_SECONDS = 1.0


@dataclass(frozen=True)
class Part:
    """Share `index` (from 1) of `count` of a job's units, as in `--part 2/8`."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "i/n"."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise InputError(f"A part is i/n with i from 1 to n, as in 2/8; {text!r} is none.")
        return cls(int(index), int(count))

    def includes(self, unit: int) -> bool:
        """Whether the unit of this number is in the part; neighbours go to different parts."""
        return unit % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class Lock(ABC):
    """A named lock in the folder of a job."""

    @abstractmethod
    def acquire(self) -> str | None:
        """Take the lock; who holds it, if somebody does, otherwise None."""

    @abstractmethod
    def release(self) -> None:
        """Give it back."""

    def check(self) -> None:
        """Raise a `CodectokError` if the lock has been lost."""


def make_lock(storage: Storage, name: str) -> Lock:
    """The lock `name` of the kind that `storage` can keep."""
    if isinstance(storage, LocalStorage):
        return _FileLock(storage, name)
    return _Lease(storage, name)


@contextmanager
def entry(storage: Storage) -> Iterator[None]:
    """Wait for, and hold for a moment, the right to make the plan and to take or finish a job."""
    lock = make_lock(storage, "entry")
    while lock.acquire() is not None:
        time.sleep(ENTRY_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def lock_job(storage: Storage, part: Part | None) -> Lock:
    """Take the whole job or `part` of it; call this within `entry`.

    Raises:
        InputError: somebody works on the job, or on a part of it that overlaps.
    """
    own = "whole" if part is None else f"part-{part.index}-of-{part.count}"
    for path in storage.sizes(LOCKS):
        name = path.rpartition("/")[2]
        other_share = name.startswith("part-") and (part is None or not name.endswith(f"-of-{part.count}"))
        if name == "whole" or other_share:
            other = make_lock(storage, name)
            _refuse(storage, other.acquire())
            other.release()
    lock = make_lock(storage, own)
    _refuse(storage, lock.acquire())
    return lock


def _refuse(storage: Storage, holder: str | None) -> None:
    if holder is not None:
        raise InputError(f"{storage.url} is being written by {holder}; wait for it or stop it first.")


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


class _FileLock(Lock):
    def __init__(self, storage: LocalStorage, name: str) -> None:
        self._path = storage.path / LOCKS / name
        self._file: Any = None

    def acquire(self) -> str | None:
        while True:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a+")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read() or "another process"
                file.close()
                return holder
            if self._is_in_place(file):
                break
            file.close()
        file.truncate(0)
        file.write(_this_process())
        file.flush()
        self._file = file
        return None

    def release(self) -> None:
        self._file.truncate(0)
        self._file.close()

    def _is_in_place(self, file: IO[str]) -> bool:
        """Whether `file` is the one at the path: its last holder may have deleted the folder."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False


class _Lease(Lock):
    """An object that names its holder and is written again and again; one that grows old belongs to nobody."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name = storage, f"{LOCKS}/{name}"
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._renewed = 0.0
        self._thread: threading.Thread | None = None

    def acquire(self) -> str | None:
        before = self._read()
        if before is not None:
            if time.time() - before["time"] < LEASE_SECONDS:
                return before["holder"]
            # Clocks differ: it is old only if nobody renews it.
            time.sleep(2 * RENEW_SECONDS)
            if self._read() not in (before, None):
                return before["holder"]
        self._renew()
        # Of two that write at once the later wins; both look again.
        time.sleep(SETTLE_SECONDS)
        if not self._is_mine():
            return (self._read() or {"holder": "another process"})["holder"]
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        return None

    def release(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._is_mine():
            self._storage.remove(self._name)

    def check(self) -> None:
        if time.monotonic() - self._renewed > LEASE_SECONDS / 2:
            raise CodectokError(
                f"The lease on {self._storage.url} could not be renewed for {LEASE_SECONDS / 2:g} s, so that others may"
                " have taken it; run the same command again to go on."
            )
        if not self._is_mine():
            raise CodectokError(f"Another process has taken the lease on {self._storage.url}; let it go on.")

    def _keep(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            try:
                if not self._is_mine():
                    return  # `check` will say so
                self._renew()
            except Exception:
                continue  # every store's client has errors of its own; tried again, and `check` counts the time

    def _is_mine(self) -> bool:
        now = self._read()
        return now is not None and now["token"] == self._token

    def _renew(self) -> None:
        lease = {"token": self._token, "holder": _this_process(), "time": time.time()}
        self._storage.write(self._name, json.dumps(lease).encode())
        self._renewed = time.monotonic()

    def _read(self) -> dict[str, Any] | None:
        try:
            return json.loads(self._storage.read(self._name))
        except FileNotFoundError:
            return None
