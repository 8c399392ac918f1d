"""Result of a verification."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verified:
    """Amount of output that was checked and is right.

    Attributes:
        units: number of units; None for a table without a plan.
        files: number of files.
        bytes: size of the files.
        rows: rows of output.
        seconds: audio in the output.
        verb: job that wrote the output; None for a table without a plan.
        contents: True if the contents of files were checked; False if only hashes, records and rejects were, since the
            job names no verifier.
    """

    units: int | None
    files: int
    bytes: int
    rows: int
    seconds: float
    verb: str | None = None
    contents: bool = True
