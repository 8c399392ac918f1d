"""Errors while an input is read: faults of the input become rejects, faults of the machine pass through."""

from __future__ import annotations

import lzma
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from .errors import AudioError, CodectokError, InputError, first_line, is_lasting

# Raised for contents that are damaged or false.
DAMAGE = (EOFError, UnicodeError, zlib.error, lzma.LZMAError, tarfile.TarError, struct.error)
# With so much memory to spare, an allocation fails because of an absurd size that the input states.
SPARE_BYTES = 1 << 28
PACKAGE = __name__.partition(".")[0]


@contextmanager
def reading(where: str, damage: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raise errors in the context, which reads the input `where`, as the `AudioError` of its reject.

    Args:
        where: names the input in messages.
        damage: further classes of exceptions that damaged contents raise.

    Raises:
        AudioError: the input cannot be read.
        OSError, MemoryError: the disk failed, or the machine lacks memory.
        CodectokError: the error concerns the whole job.
    """
    try:
        yield
    except AudioError:
        raise
    except Exception as error:
        raise fault_of(error, where, damage) from error


def fault_of(error: Exception, where: str, damage: tuple[type[Exception], ...] = ()) -> AudioError:
    """Return the `AudioError` for an error that was raised while `where` was read, or raise `error` (see `reading`)."""
    if isinstance(error, AudioError):
        return error
    if isinstance(error, InputError):
        return AudioError(str(error), "unreadable")
    if isinstance(error, CodectokError):
        raise error
    if isinstance(error, MemoryError):
        if not _has_memory():
            raise error
        return AudioError(f"{where} asks for more memory than a sample may take.", "too_large")
    if isinstance(error, RecursionError):
        return AudioError(f"{where} cannot be read: it is nested too deeply.", "unreadable")
    if isinstance(error, OSError):
        if not is_lasting(error):
            raise error
        return AudioError(f"{where} cannot be read: {error.strerror or first_line(error).rstrip('.')}.", "unreadable")
    if isinstance(error, (*DAMAGE, *damage)):
        return AudioError(f"{where} cannot be read: {first_line(error).rstrip('.')}.", "unreadable")
    # The last line of defence: a fault that the readers do not foresee costs one sample, not its unit.
    name, line = type(error).__name__, first_line(error)
    described = name if line == name else f"{name} ({line})"
    message = (
        f"A bug of codectok, please report it: {described} in {_place(error.__traceback__)} while reading {where}."
    )
    return AudioError(message, "unexpected_error")


def _has_memory() -> bool:
    try:
        bytearray(SPARE_BYTES)
    except MemoryError:
        return False
    return True


def _place(traceback: TracebackType | None) -> str:
    """Module and line of the innermost frame of this package."""
    place = PACKAGE
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] == PACKAGE:
            place = f"{name}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place
