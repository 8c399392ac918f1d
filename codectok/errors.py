"""Exceptions of codectok. Each message is one sentence for the user: the fault, its place, the remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Reason = Literal[
    "unreadable",
    "unreachable",
    "changed",
    "invalid_row",
    "decode_error",
    "decoder_crash",
    "empty",
    "too_short",
    "too_long",
    "too_large",
    "not_finite",
    "silent",
    "clipped",
    "cancelled",
    "duplicate",
    "unsupported",
    "filtered",
    "unexpected_error",
]
"""Why an input has no output; "unexpected_error" is a bug of codectok."""

LONGEST_REASON = 200
# The same command may find these inputs usable later, and tries them again.
PASSING_REASONS: frozenset[Reason] = frozenset(["unreachable", "changed"])

# Errors of the file system that another try will not fix; all others may be temporary.
LASTING_REFUSALS = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL,
    errno.ENXIO,
}  # fmt: skip


class CodectokError(Exception):
    """Work failed. The command line ends with exit code 1."""

    exit_code = 1


class PassingError(CodectokError):
    """A temporary failure, such as a store that did not answer; another try may succeed."""


class VerificationError(CodectokError):
    """An output is wrong; the message names the first fault."""


class InputError(CodectokError):
    """An argument or input cannot be used. The command line ends with exit code 2."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration has an unknown key, a wrong type or inconsistent sizes."""


class CheckpointError(InputError):
    """A checkpoint is missing, has another format, or lacks expected tensors."""


class AudioError(InputError):
    """Audio that cannot be used.

    Attributes:
        reason: of the reject that it becomes in a job.
        seconds: duration of the audio that is lost by it; None if unknown.
    """

    def __init__(self, message: str, reason: Reason, seconds: float | None = None) -> None:
        super().__init__(message)
        self.reason, self.seconds = reason, seconds

    def __reduce__(self) -> tuple[type[AudioError], tuple[str, Reason, float | None]]:
        # The default reduction drops the attributes, and workers pickle these errors.
        return type(self), (str(self), self.reason, self.seconds)


class NotAudioError(AudioError):
    """A file without sound: of another kind, or a film without an audio track. Broken audio is an `AudioError`."""

    def __init__(self, message: str, reason: Reason = "unreadable", seconds: float | None = None) -> None:
        super().__init__(message, reason, seconds)


@contextmanager
def damage_errors(where: object, remedy: str, error_type: type[CodectokError] = InputError) -> Iterator[None]:
    """Report an exception of a parser as damage of the file that is read in the context.

    Libraries raise exceptions of every kind for damaged bytes. Errors of codectok, and of the system with a number,
    such as a disk that fails, pass unchanged.

    Args:
        where: name of the file, for the message.
        remedy: half a sentence about the way out, such as "write the table again".
        error_type: class of the error.
    """
    try:
        yield
    except CodectokError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and (error.errno is not None or isinstance(error, FileNotFoundError)):
            raise
        raise error_type(f"{where} is damaged ({shortened(error)}); {remedy}.") from None


def shortened(error: BaseException) -> str:
    """First line of an error's message, without its end if it is long."""
    line = first_line(error).rstrip(".")
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]} ..."


def described(error: BaseException) -> str:
    """Class and first line of an error's message."""
    name, line = type(error).__name__, shortened(error)
    return name if line == name else f"{name} ({line})"


def first_line(error: BaseException) -> str:
    """First line of an error's message; the name of its class if the message is empty."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def is_lasting(error: OSError) -> bool:
    """Return True if another try cannot help, because the file is missing, unreadable or of the wrong kind."""
    return error.errno is None or error.errno in LASTING_REFUSALS
