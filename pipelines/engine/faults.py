"""Errors of units: which stop the job, which are tried again, and which never pass."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from codectok.errors import AudioError, CodectokError, first_line

# Attempts at a unit that fails, at a file that crashes a process, at a process that is killed.
ATTEMPTS = 3
# Another attempt does not help: the next unit would fail in the same way.
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class FailedUnit:
    """A unit that failed and is not retried; the job continues with the others.

    Attributes:
        unit: number of the unit.
        message: reason, in a few words.
        details: traceback or other details; empty if there are none.
        lasting: True if another run would fail as well.
    """

    unit: int
    message: str
    details: str = ""
    lasting: bool = False


class UnitError(CodectokError):
    """A unit cannot be made; other units may succeed."""


class LastingUnitError(UnitError):
    """A unit cannot be made from its sources with these options, however often it is tried."""


def stops_the_job(error: BaseException) -> bool:
    """True if an error in a unit concerns the whole job."""
    if isinstance(error, CodectokError):
        return not isinstance(error, UnitError | AudioError)
    return isinstance(error, OSError) and error.errno in FULL_DISK


def describe(error: BaseException) -> str:
    """An error in one line, without a full stop."""
    if isinstance(error, CodectokError):
        return str(error).rstrip(".")
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"
