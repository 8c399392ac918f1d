"""The event log of a run: a file with one JSON object a line.

A log that cannot be written does not end the run: the first failure is told once, later events are tried again, and
the log itself says how many are missing.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from codectok.errors import InputError, described
from codectok.names import writable
from codectok.storage import LocalStorage, Storage

from .events import Event, EventsLost

SUFFIX = ".jsonl"
# In an object store, files are replaced whole: at most this often, and while they are smaller.
STORE_SECONDS = 10.0
STORE_BYTES = 1 << 20
# Lines that wait for the store are kept up to this size; later ones are lost.
HELD_BYTES = 1 << 24
# The end of a run waits for the store this long, and tries again meanwhile.
FLUSH_SECONDS, RETRY_SECONDS = 10.0, 0.5


class EventLog:
    """Writes events to a new file in a folder.

    Args:
        folder: of the log.
        stem: name of the file, without suffix.
        on_failure: called with a sentence at the first event that cannot be written.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, folder: Storage, stem: str, on_failure: Callable[[str], None]) -> None:
        self._folder, self._on_failure = folder, on_failure
        self._lock = threading.Lock()
        self._lost, self._reason, self._told = 0, "", False
        try:
            self._file: _File = _DiskFile(folder, stem) if isinstance(folder, LocalStorage) else _Objects(folder, stem)
        except Exception as error:  # clients of stores differ in their errors
            raise InputError(
                f"The log cannot be written to {folder.url}: {described(error)}; choose another --log-dir."
            ) from None

    def write(self, event: Event, verb: str) -> None:
        """Write an event of the job or run `verb`."""
        with self._lock:
            now = time.time()
            try:
                if self._lost:
                    self._file.append(line_of(EventsLost(self._lost, self._reason), verb, now))
                    self._lost = 0
                self._file.append(line_of(event, verb, now))
            except Exception as error:
                self._lose(error)

    def flush(self, wait: bool = True) -> None:
        """Tell if the store has failed; with `wait`, bring lines that are still held to it first."""
        with self._lock:
            try:
                self._file.flush(wait)
            except Exception as error:
                self._lose(error, count=0)

    def close(self) -> None:
        """Flush and close the file."""
        self.flush()
        with suppress(OSError):  # a disk that fails has been told of
            self._file.close()

    def _lose(self, error: Exception, count: int = 1) -> None:
        self._lost += count
        self._reason = described(error)
        if not self._told:
            self._told = True
            self._on_failure(
                f"The log in {self._folder.url} could not be written: {self._reason}; the run continues and tries"
                " again, and the log will count the events that are lost."
            )


def line_of(event: Event, verb: str, seconds: float) -> bytes:
    """Return the line of an event of the job or run `verb`, at `seconds` since 1970."""
    moment = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"time": moment, "event": event.name, "verb": verb, **_plain(event.values())}
    return json.dumps(line, allow_nan=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    """Convert to types of JSON; numbers that JSON cannot hold become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return writable(value)
    return value if value is None or isinstance(value, bool | int) else str(value)


class _File(ABC):
    """A file of lines."""

    @abstractmethod
    def append(self, line: bytes) -> None:
        """Add a line completely, or raise an error and leave the file as it was."""

    def flush(self, wait: bool) -> None:
        """Raise the error of lines that are held, if any; with `wait`, write them first."""

    def close(self) -> None:
        """Close the file."""


class _DiskFile(_File):
    def __init__(self, folder: LocalStorage, stem: str) -> None:
        folder.path.mkdir(parents=True, exist_ok=True)
        self._descriptor = _open_new(folder.path, stem)
        self._size = 0

    def append(self, line: bytes) -> None:
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):
                os.write(self._descriptor, line[written:])  # names the reason
        except OSError:
            # Half a line would spoil the next one.
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(line)

    def close(self) -> None:
        os.close(self._descriptor)


def _open_new(folder: Path, stem: str) -> int:
    number = 1
    while True:
        name = f"{stem}{SUFFIX}" if number == 1 else f"{stem}-{number}{SUFFIX}"
        try:
            return os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            number += 1


class _Objects(_File):
    """Objects of a store, of `STORE_BYTES` and more each; the last one is replaced until it is full.

    A thread writes them, so that a store that is slow, or hangs, does not delay the run.
    """

    def __init__(self, folder: Storage, stem: str) -> None:
        self._folder, self._stem = folder, stem
        self._number, self._lines, self._written = 1, bytearray(), 0
        self._last = -math.inf
        self._failure: Exception | None = None
        self._hurries = self._closed = False
        self._changed = threading.Condition()
        folder.write(self._name, b"")
        threading.Thread(target=self._write_objects, name="event log", daemon=True).start()

    @property
    def _name(self) -> str:
        return f"{self._stem}{SUFFIX}" if self._number == 1 else f"{self._stem}-{self._number}{SUFFIX}"

    def append(self, line: bytes) -> None:
        with self._changed:
            waiting = len(self._lines) - self._written
            if waiting + len(line) > HELD_BYTES:
                raise TimeoutError(f"the store has not taken {waiting:,} bytes")
            self._lines += line
            self._changed.notify_all()

    def flush(self, wait: bool) -> None:
        with self._changed:
            if wait:
                self._hurries = True
                self._changed.notify_all()
                written = self._changed.wait_for(lambda: self._is_written, FLUSH_SECONDS)
                if not written and self._failure is None:
                    self._failure = TimeoutError(f"the store does not answer within {FLUSH_SECONDS:g} s")
                self._hurries = False
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def _next_time(self) -> float:
        """Time of the next write, or of the next try."""
        return self._last + (RETRY_SECONDS if self._hurries else STORE_SECONDS)

    @property
    def _is_written(self) -> bool:
        return self._written == len(self._lines)

    def _write_objects(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (self._is_written or time.monotonic() < self._next_time):
                    self._changed.wait(None if self._is_written else self._next_time - time.monotonic())
                if self._closed:
                    return
                name, lines = self._name, bytes(self._lines)
            try:
                self._folder.write(name, lines)
            except Exception as error:  # clients of stores differ in their errors
                with self._changed:
                    self._last, self._failure = time.monotonic(), error
                continue
            with self._changed:
                self._last = time.monotonic()
                self._written = len(lines)
                if self._written >= STORE_BYTES:
                    self._number, self._written = self._number + 1, 0
                    del self._lines[: len(lines)]
                self._changed.notify_all()
