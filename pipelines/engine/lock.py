"""Locks on an output folder: one run at a time, or runs of different shares of one job.

On a disk a lock is `flock`, which ends with its process. In an object store it is a lease that its holder renews.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Self

from codectok.errors import CodectokError, InputError, damage_errors
from codectok.names import JOB_FOLDER
from codectok.storage import LocalStorage, Storage

LOCKS = f"{JOB_FOLDER}/locks"
WHOLE = "whole"
RENEW_SECONDS = 15.0
LEASE_SECONDS = 90.0
ENTRY_POLL_SECONDS = 0.2
# `status` holds a file lock for a moment when it looks at it.
LOOK_SECONDS = 0.05
SETTLE_SECONDS = 1.0
# Jobs check their lease for every unit; a request for each would slow them down.
LOOK_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class JobShare:
    """Share `index` (from 1) of `count` of a job's units, as in `--part 2/8`."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse "i/n"."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise InputError(f"A part is i/n with i from 1 to n, as in 2/8, not {text!r}.")
        return cls(int(index), int(count))

    @property
    def name(self) -> str:
        """Name of its lock and of its folder for attempts."""
        return f"part-{self.index}-of-{self.count}"

    def includes(self, unit: int) -> bool:
        """True if the unit with this number is in the share; neighbours are in different shares."""
        return unit % self.count == self.index - 1

    def overlaps(self, name: str) -> bool:
        """True if the share `name`, another one than this, can hold units of this share."""
        return not name.endswith(f"-of-{self.count}")


def run_name(share: JobShare | None) -> str:
    """Name of a run of `share`, or of the whole job."""
    return WHOLE if share is None else share.name


class Lock(ABC):
    """A named lock in the folder of a job."""

    @abstractmethod
    def acquire(self) -> str | None:
        """Take the lock and return None; return the name of the holder if it is taken."""

    @abstractmethod
    def release(self) -> None:
        """Release the lock."""

    @abstractmethod
    def holder(self) -> str | None:
        """Return the name of the process that holds the lock, without taking it; None if it is free."""

    def check(self) -> None:
        """Raise a `CodectokError` if the lock was lost."""


def make_lock(storage: Storage, name: str) -> Lock:
    """Create the lock `name`: a file lock on a disk, a lease in an object store."""
    if isinstance(storage, LocalStorage):
        return _FileLock(storage, name)
    return _Lease(storage, name)


@contextmanager
def entry(storage: Storage) -> Iterator[Lock]:
    """Wait for and hold the lock under which runs store a plan, take their locks and finish a job."""
    lock = make_lock(storage, "entry")
    while lock.acquire() is not None:
        time.sleep(ENTRY_POLL_SECONDS)
    try:
        yield lock
    finally:
        lock.release()


def lock_job(storage: Storage, share: JobShare | None) -> Lock:
    """Lock the whole job or `share` of it; call this within `entry`.

    Raises:
        InputError: another process runs the job, or a share that overlaps.
    """
    names = [path.rpartition("/")[2] for path in storage.sizes(LOCKS)]
    overlapping = [name for name in names if name.startswith("part-") and (share is None or share.overlaps(name))]
    others = [make_lock(storage, name) for name in names if name == WHOLE or name in overlapping]
    # At the same time: the lease of a dead run is waited for.
    with ThreadPoolExecutor(max(1, len(others))) as pool:
        holders = list(pool.map(lambda other: other.acquire(), others))
    for other in others:
        other.release()
    for holder in holders:
        refuse(storage, holder)
    lock = make_lock(storage, run_name(share))
    refuse(storage, lock.acquire())
    return lock


def held_locks(storage: Storage) -> dict[str, str]:
    """Names of the locks that are held, with their holders; takes none of them."""
    names = [path.rpartition("/")[2] for path in storage.sizes(LOCKS)]
    found = {name: make_lock(storage, name).holder() for name in names if not name.startswith(".")}
    return {name: holder for name, holder in found.items() if holder is not None}


def refuse(storage: Storage, holder: str | None) -> None:
    """Raise an `InputError` if a lock of the job has a holder."""
    if holder is not None:
        raise InputError(f"{storage.url} is being written by {holder}; wait for it or stop it first.")


def process_name() -> str:
    """Name of this process, for messages to others."""
    return f"process {os.getpid()} on {socket.gethostname()}"


class _FileLock(Lock):
    def __init__(self, storage: LocalStorage, name: str) -> None:
        self._folder, self._path = storage.url, storage.path / LOCKS / name
        self._file: IO[str] | None = None

    def acquire(self) -> str | None:
        first = True
        while True:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a+")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with file:
                    if first:
                        time.sleep(LOOK_SECONDS)
                        first = False
                        continue
                    file.seek(0)
                    return file.read() or "another process"
            if self._is_in_place(file):
                break
            file.close()
        file.truncate(0)
        file.write(process_name())
        file.flush()
        self._file = file
        return None

    def release(self) -> None:
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()

    def holder(self) -> str | None:
        try:
            file = self._path.open()
        except FileNotFoundError:
            return None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read() or "another process"
        return None

    def check(self) -> None:
        if self._file is not None and not self._is_in_place(self._file):
            raise CodectokError(
                f"{self._folder} was removed or replaced while this command was writing to it; run the same command"
                " again to make what is missing."
            )

    def _is_in_place(self, file: IO[str]) -> bool:
        """False if another process has deleted the folder, and `file` with it."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return False


class _Lease(Lock):
    """An object that names its holder and is renewed; an old one counts as free."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name = storage, f"{LOCKS}/{name}"
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._renewed = 0.0
        self._looked = float("-inf")
        self._thread: threading.Thread | None = None

    def acquire(self) -> str | None:
        before = self._read()
        if before is not None:
            if time.time() - before.time < LEASE_SECONDS:
                return before.holder
            # Clocks differ, so that the lease is old only if its holder does not renew it.
            time.sleep(2 * RENEW_SECONDS)
            if self._read() not in (before, None):
                return before.holder
        self._renew()
        # Of two processes that write at once the later wins, so that both read again.
        time.sleep(SETTLE_SECONDS)
        if not self._is_mine():
            now = self._read()
            return now.holder if now else "another process"
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        return None

    def release(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._is_mine():
            self._storage.remove(self._name)

    def holder(self) -> str | None:
        lease = self._read()
        return None if lease is None or time.time() - lease.time > LEASE_SECONDS else lease.holder

    def check(self) -> None:
        if time.monotonic() - self._renewed > LEASE_SECONDS / 2:
            raise CodectokError(
                f"The lease on {self._storage.url} could not be renewed for {LEASE_SECONDS / 2:g} s, so that another"
                " process may have taken it; run the same command again to continue."
            )
        if time.monotonic() - self._looked < LOOK_AGAIN_SECONDS:
            return
        self._looked = time.monotonic()
        if not self._is_mine():
            raise CodectokError(f"Another process has taken the lease on {self._storage.url}; let it finish.")

    def _keep(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            try:
                if not self._is_mine():
                    return  # `check` reports it
                self._renew()
            except Exception:
                continue  # clients of stores differ in their errors; `check` fails after half of the lease

    def _is_mine(self) -> bool:
        now = self._read()
        return now is not None and now.token == self._token

    def _renew(self) -> None:
        lease = {"token": self._token, "holder": process_name(), "time": time.time()}
        self._storage.write(self._name, json.dumps(lease).encode())
        self._renewed = time.monotonic()

    def _read(self) -> _LeaseContent | None:
        try:
            data = self._storage.read(self._name)
        except FileNotFoundError:
            return None
        with damage_errors(f"The lease {self._storage.url}/{self._name}", "remove it if no run is active"):
            return _LeaseContent(**json.loads(data))


@dataclass(frozen=True)
class _LeaseContent:
    token: str
    holder: str
    time: float
