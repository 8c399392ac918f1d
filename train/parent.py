"""The process that started a worker: its end is noticed, and the worker writes no errors afterwards."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TextIO

# From sched.h of Linux: the process has begun to exit. It is set before the files of the process are closed, so that a
# process that reads the end of a pipe or a reset connection finds it set.
_PF_EXITING = 0x4
_STATE, _FLAGS = 0, 6


class Parent:
    """The process that started this one by `multiprocessing`; with a fork server it is not the one that forked."""

    def __init__(self) -> None:
        process = multiprocessing.parent_process()
        assert process is not None, "this process was not started by multiprocessing"
        self.pid, self._sentinel = process.pid, process.sentinel

    def is_gone(self) -> bool:
        """True once the process has ended or its end has begun."""
        # Workers that were forked later hold the other end of the sentinel, so that the process is looked up as well.
        return bool(wait([self._sentinel], timeout=0)) or _has_ended(self.pid)


def _has_ended(process: int | None) -> bool:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return fields[_STATE] in "ZX" or bool(int(fields[_FLAGS]) & _PF_EXITING)


def silence_without(parent: Parent) -> None:
    """Make standard error drop text once `parent` is gone."""
    if sys.stderr is not None:
        sys.stderr = _ErrorsWhileParentRuns(sys.stderr, parent)


class _ErrorsWhileParentRuns:
    """Standard error that drops text once the parent is gone.

    Python's queues and threads print a traceback for a connection that the death of the parent has reset, each in its
    own place; all of them write here.
    """

    def __init__(self, stream: TextIO, parent: Parent) -> None:
        self._stream, self._parent = stream, parent

    def write(self, text: str) -> int:
        """Write `text` if the parent runs."""
        return len(text) if self._parent.is_gone() else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
