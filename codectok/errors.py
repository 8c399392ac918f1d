"""Exceptions of codectok: each message is one sentence for the user (what is wrong, where, what to do)."""

from __future__ import annotations

import errno
from typing import Literal

Reason = Literal[
    "unreadable",
    "decode_error",
    "decoder_crash",
    "empty",
    "too_short",
    "too_long",
    "not_finite",
    "silent",
    "clipped",
    "duplicate",
    "unsupported",
    "filtered",
]
"""Why an input has no output."""

# What the system says of a file that it will say tomorrow too; anything else may pass.
LASTING_REFUSALS = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL,
    errno.ENXIO,
}  # fmt: skip


class CodectokError(Exception):
    """Something failed while working; the command line ends with exit code 1."""

    exit_code = 1


class PassingError(CodectokError):
    """Something failed that another try may not meet, such as a store that did not answer."""


class VerificationError(CodectokError):
    """An output is not what it should be; the message names the first place."""


class InputError(CodectokError):
    """What the caller gave cannot be used; the command line ends with exit code 2."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration has an unknown key, a wrong type or sizes that do not fit together."""


class CheckpointError(InputError):
    """A checkpoint is missing, is not one, or does not have the expected tensors."""


class AudioError(InputError):
    """Audio cannot be used.

    Attributes:
        reason: of the reject that it becomes in a job.
    """

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[AudioError], tuple[str, Reason]]:
        # The default reduction forgets `reason`, and workers send these errors between processes.
        return type(self), (str(self), self.reason)


def is_lasting(error: OSError) -> bool:
    """Whether trying again will not help: the file itself cannot be read, or is not what it should be."""
    return error.errno is None or error.errno in LASTING_REFUSALS
