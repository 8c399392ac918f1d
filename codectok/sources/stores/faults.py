"""Errors of stores: tried again if they may pass, then the reject of the file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from codectok.errors import AudioError, InputError, first_line
from codectok.reading import fault_of

T = TypeVar("T")

# Before each further attempt, in seconds.
WAITS = (0.5, 2.0)
# Answers of web servers that may be others later: timeouts, too many requests, errors of the server.
PASSING_STATUSES = frozenset([408, 425, 429, *range(500, 600)])
# Raised by faults of programs, not of networks.
BUGS = (TypeError, AttributeError, LookupError, AssertionError)


class DiskError(Exception):
    """A temporary file on this machine cannot be written; `error` says why."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def patiently(call: Callable[[], T], url: str) -> T:
    """Return the result of `call`, which reads `url`; errors that may pass are waited for.

    Raises:
        AudioError: "unreachable" if the error may pass later, else "unreadable".
        OSError: the disk of this machine failed.
    """
    for wait in (*WAITS, None):
        try:
            return call()
        except DiskError as error:
            raise error.error from None
        except AudioError:
            raise
        except Exception as error:
            fault = fault_of_store(error, url)
            if fault.reason != "unreachable" or wait is None:
                raise fault from error
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def fault_of_store(error: Exception, url: str) -> AudioError:
    """Return the error of a file in a store for the error of the store's client."""
    if isinstance(error, (*BUGS, MemoryError)):
        return fault_of(error, url)
    if isinstance(error, InputError):  # there is no client for such a URL
        return AudioError(str(error), "unreadable")
    name, line = type(error).__name__, first_line(error).rstrip(".")
    message = f"{url} cannot be fetched: {name if name == line else f'{line} ({name})'}."
    status = getattr(error, "status", None)
    if isinstance(status, int):
        message = f"{url} cannot be fetched: {name} {status or ''} ({getattr(error, 'message', '')})."
        return AudioError(message, "unreachable" if status in PASSING_STATUSES else "unreadable")
    refused = isinstance(error, FileNotFoundError | PermissionError | ValueError | NotImplementedError)
    return AudioError(message, "unreadable" if refused else "unreachable")
