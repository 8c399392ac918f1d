"""Lines of a listener's file: a start, ratings, and pages that are complete."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from codectok.config import StrictModel
from codectok.errors import InputError

LONGEST_NAME = 60
MOST_SECONDS = 1e6
ListenerName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_NAME)]
Seconds = Annotated[float, Field(ge=0, le=MOST_SECONDS, allow_inf_nan=False)]
Id = Annotated[str, StringConstraints(max_length=64)]


class Start(StrictModel):
    """The first line: the name that a listener entered, and the time as ISO 8601 in UTC."""

    listener: ListenerName
    time: str


class Rating(StrictModel):
    """A rating of a stimulus on a scale; a later one of the same stimulus and scale replaces it.

    Attributes:
        page, stimulus, scale, value: the rating.
        listened: seconds for which the stimulus has been played on this page.
        time: ISO 8601 in UTC.
    """

    page: Id
    stimulus: Id
    scale: Id
    value: Annotated[int, Field(strict=True)]
    listened: Seconds
    time: str


class Completion(StrictModel):
    """A page that the listener has left with all ratings, and the seconds for which each stimulus was played."""

    completed: Id
    listened: dict[Id, Seconds]
    time: str


Line = Start | Rating | Completion
_LINES: TypeAdapter[Line] = TypeAdapter(Line)


class RatingsFile:
    """A file of JSON lines that only grows; each line is on disk before `append` returns.

    Args:
        path: of the file. A last line without an end, which a crash has cut off, is removed before the next is added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Iterator[Line]:
        """Yield all complete lines.

        Raises:
            InputError: a line is damaged.
        """
        content = self.path.read_bytes()
        *lines, _ = content.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                yield _LINES.validate_json(line)
            except (ValidationError, UnicodeDecodeError):
                raise InputError(
                    f"Line {number} of {self.path} is damaged; correct or remove it, or move the file away."
                ) from None

    def append(self, lines: Iterable[Line]) -> None:
        """Add lines, and wait until they are on disk."""
        text = "".join(json.dumps(line.model_dump(), ensure_ascii=True) + "\n" for line in lines)
        is_new = not self.path.exists()
        # Without a buffer, whose rest would be written when the file is closed after an error.
        with self.path.open("ab+", buffering=0) as file:
            end = _end_of_lines(file.seek(0, os.SEEK_END), self.path)
            file.truncate(end)
            rest = memoryview(text.encode())
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:  # a full disk: no half of a line stays
                file.truncate(end)
                raise
        if is_new:
            descriptor = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _end_of_lines(size: int, path: Path) -> int:
    """Size of a file without a last line that has no end."""
    if size == 0:
        return 0
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return size if file.read(1) == b"\n" else path.read_bytes().rfind(b"\n") + 1
