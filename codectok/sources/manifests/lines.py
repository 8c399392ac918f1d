"""Lines of a manifest, and the ones that cannot be parsed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be parsed; `problem` is the end of a sentence."""

    number: int
    problem: str


Lines = Iterator[tuple[int, dict[str, Any]] | BadLine]
"""Values of each line with its number."""


def line_problem(number: int, name: str, problem: str) -> str:
    """Sentence about a line of the file `name` that cannot be used; `problem` is its end."""
    return f"Line {number} of {name} cannot be used: {problem}."
