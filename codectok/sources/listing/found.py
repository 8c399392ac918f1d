"""Files that were found, and their order."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

UNKNOWN = -(1 << 63)


class FoundFile(NamedTuple):
    """A file: path below the root, bytes, nanoseconds since 1970, and content in a store; None if unknown."""

    path: str
    size: int | None
    modified: int | None
    content: int | None = None


def folder_by_folder(files: Iterable[FoundFile]) -> Iterator[FoundFile]:
    """Yield the files of each folder together, after the files of the folder that holds it.

    Stores list by path, so that the folders in a folder come between its files. Files are held as columns meanwhile.
    """
    paths: list[str] = []
    folders: list[str] = []
    numbers = tuple(array("q") for _ in FoundFile._fields[1:])
    folder = ""
    for file in files:
        above = file.path[: file.path.rfind("/") + 1]
        if above != folder:
            folder = above  # in memory once
        paths.append(file.path)
        folders.append(folder)
        for column, number in zip(numbers, file[1:], strict=True):
            column.append(UNKNOWN if number is None else number)
    order = array("q", sorted(range(len(paths)), key=folders.__getitem__))
    del folders
    for position in order:
        values = (None if column[position] == UNKNOWN else column[position] for column in numbers)
        yield FoundFile(paths[position], *values)
