"""Files that were found, and their order."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

LIMIT = 1 << 63
UNKNOWN = -LIMIT


class FoundFile(NamedTuple):
    """A file: path below the root, bytes, nanoseconds since 1970, and content in a store; None if unknown."""

    path: str
    size: int | None
    modified: int | None
    content: int | None = None


class IntegerColumn:
    """Integers of 64 bits in 8 bytes each; None if unknown, as are larger ones, such as times after 2262."""

    def __init__(self, values: Iterable[int | None] = ()) -> None:
        self._values = array("q")
        for value in values:
            self.append(value)

    def append(self, value: int | None) -> None:
        """Add a value at the end."""
        self._values.append(UNKNOWN if value is None or not UNKNOWN < value < LIMIT else value)

    def without(self, positions: Collection[int]) -> IntegerColumn:
        """Return the column without some positions."""
        return IntegerColumn(value for position, value in enumerate(self) if position not in positions)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, position: int) -> int | None:
        value = self._values[position]
        return None if value == UNKNOWN else value

    def __iter__(self) -> Iterator[int | None]:
        return (None if value == UNKNOWN else value for value in self._values)


def folder_by_folder(files: Iterable[FoundFile]) -> Iterator[FoundFile]:
    """Yield the files of each folder together, after the files of the folder that holds it.

    Stores list by path, so that the folders in a folder come between its files. Files are held as columns meanwhile.
    """
    paths: list[str] = []
    folders: list[str] = []
    sizes, modified, contents = IntegerColumn(), IntegerColumn(), IntegerColumn()
    folder = ""
    for file in files:
        above = file.path[: file.path.rfind("/") + 1]
        if above != folder:
            folder = above  # in memory once
        paths.append(file.path)
        folders.append(folder)
        sizes.append(file.size)
        modified.append(file.modified)
        contents.append(file.content)
    order = array("q", sorted(range(len(paths)), key=folders.__getitem__))
    del folders
    for position in order:
        yield FoundFile(paths[position], sizes[position], modified[position], contents[position])
