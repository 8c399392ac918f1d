"""Exceptions of codectok. Each message is one sentence for the user: the fault, its place, the remedy."""

from __future__ import annotations

import errno
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
    "not_finite",
    "silent",
    "clipped",
    "cancelled",
    "duplicate",
    "unsupported",
    "filtered",
]
"""Why an input has no output."""

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


def first_line(error: BaseException) -> str:
    """First line of an error's message; the name of its class if the message is empty."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def is_lasting(error: OSError) -> bool:
    """Return True if another try cannot help, because the file is missing, unreadable or of the wrong kind."""
    return error.errno is None or error.errno in LASTING_REFUSALS
