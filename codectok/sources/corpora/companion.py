"""A companion: the file that describes the samples of a tar."""

from __future__ import annotations

from typing import Literal

from codectok.config import StrictModel


class Companion(StrictModel):
    """The file beside a tar that names its samples, one in each line.

    Attributes:
        layout: of the corpus.
        path: relative to the root of the dataset.
        size: bytes when it was listed; None if unknown.
        first_byte, last_byte: range of the lines about this tar; None for the end of the file.
        first_line: number of the line at `first_byte`.
    """

    layout: Literal["shar", "nemo"]
    path: str
    size: int | None = None
    first_byte: int = 0
    last_byte: int | None = None
    first_line: int = 1
