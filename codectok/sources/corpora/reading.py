"""Reads the folders of a corpus: files, and rows of the files that describe them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from codectok.names import printable
from codectok.sources.listing.found import FoundFile
from codectok.sources.manifests.read import UnusedField, read_rows_and_unused
from codectok.sources.manifests.row import ManifestRow
from codectok.sources.unused import Unused

from .layout import CorpusFolder, Recognised
from .registry import find_layout, layout_of_file


@dataclass(frozen=True)
class ReadAs:
    """Files that were recognised as a layout: their number, and one of them."""

    layout: str
    count: int
    example: str


Found = FoundFile | ManifestRow | Unused | ReadAs


def read_folders(
    root: str, files: Iterable[FoundFile], covered: set[str], encoding: str | None = None
) -> Iterator[Found]:
    """Yield the files below a root that no layout reads, and the rows of the ones that are read.

    Args:
        root: folder or URL.
        files: folder by folder, each after the folder that holds it.
        covered: receives the paths that rows name; a file among them that came before its row must be left out.
        encoding: of texts without a byte-order mark; None for UTF-8.

    Raises:
        InputError: a file of a layout cannot be read.
    """
    for prefix, group in itertools.groupby(files, key=lambda file: file.path[: file.path.rfind("/") + 1]):
        folder = CorpusFolder(root, prefix, {file.path[len(prefix) :]: file for file in group}, encoding)
        found = find_layout(folder)
        if found is not None:
            for one in _read(folder, found):
                if isinstance(one, ManifestRow):
                    covered.add(one.path.removeprefix(f"{root}/"))
                yield one
        used = frozenset(found.names) if found is not None else frozenset()
        for name, file in folder.files.items():
            if name not in used and file.path not in covered:
                yield file


def read_named(root: str, name: str, encoding: str | None = None) -> Iterator[Found]:
    """Yield the rows of a manifest in `encoding`, as the layout reads it to which it belongs.

    Raises:
        InputError: the manifest cannot be read, or none of its lines can be used.
    """
    folder = CorpusFolder(root, encoding=encoding)
    found = layout_of_file(folder, name)
    if found is not None:
        yield from _read(folder, found)
    else:
        yield from map(_unused, read_rows_and_unused(root, name, encoding=encoding))


def _read(folder: CorpusFolder, found: Recognised) -> Iterator[Found]:
    layout = found.layout
    for name in found.left:
        yield Unused("sidecars", f"{layout.name}: {name}", example=printable(folder.path(name)))
    if found.names:
        yield ReadAs(layout.name, len(found.names), printable(folder.path(found.names[0])))
        yield from map(_unused, layout.rows(folder, found.names))


def _unused(found: ManifestRow | UnusedField) -> ManifestRow | Unused:
    return found if isinstance(found, ManifestRow) else Unused("columns", found.name, example=printable(found.path))
