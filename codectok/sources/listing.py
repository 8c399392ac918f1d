"""Lists the sources of a job: folders, patterns, files and manifests.

No audio file is opened; of text, images and the like the first bytes are read, in case that they are audio.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codectok.audio.files import is_film_path
from codectok.errors import InputError
from codectok.names import printable
from codectok.storage import is_url

from .arguments import Argument
from .kinds import Kind, container_kind, kind_of, suffix_of
from .manifests.read import read_manifest
from .manifests.row import ManifestRow
from .probing import with_audio
from .source import Source
from .unused import Unused, UnusedCounts, add_unused
from .walk import FoundFile, find_files, local_size_and_time

# Files that are probed together.
HELD_FILES = 1 << 14

Reads = Callable[[Argument, str, Kind | None], bool]
"""True for files to read, by the argument that names them, their path below the root, and their kind."""


class Descriptions:
    """Rows of manifests, by the position of their source in a listing.

    Kept as columns, since an object for each of many million rows would take several times the memory.
    """

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in ManifestRow._fields}

    def add(self, position: int, row: ManifestRow) -> None:
        """Describe the source at `position`, which must be larger than all positions before."""
        for column, value in zip(self._columns.values(), row, strict=True):
            column.extend([None] * (position - len(column)))
            column.append(value)

    def get(self, position: int) -> ManifestRow | None:
        """The row of a source, or None."""
        paths = self._columns["path"]
        if position >= len(paths) or paths[position] is None:
            return None
        return ManifestRow(*[column[position] for column in self._columns.values()])

    def column(self, name: str, positions: Iterable[int]) -> list[Any]:
        """One field of several sources; None for sources without a row."""
        column = self._columns[name]
        return [column[position] if position < len(column) else None for position in positions]


@dataclass(frozen=True, slots=True)
class Listing:
    """All sources found, as columns, in no particular order.

    Attributes:
        arguments: that were listed.
        roots: folder or URL of every dataset.
        datasets, paths, kinds, sizes, modified: one entry per source; see `Source`.
        described: rows of manifests.
        passed_over: number of files that each argument names and that are not read.
        unused: these files by suffix, and other parts of the input that are not used, for each argument.
    """

    arguments: tuple[Argument, ...]
    roots: Mapping[str, str]
    datasets: Sequence[str]
    paths: Sequence[str]
    kinds: Sequence[Kind]
    sizes: Sequence[int | None]
    modified: Sequence[int | None]
    described: Descriptions
    passed_over: Mapping[Argument, int]
    unused: Mapping[Argument, UnusedCounts]

    @property
    def ignored(self) -> int:
        """Number of files that are not read."""
        return sum(self.passed_over.values())

    def source(self, position: int) -> Source:
        """The source at a position."""
        dataset, row = self.datasets[position], self.described.get(position)
        fields = {} if row is None else row._asdict()
        fields |= {"path": self.paths[position], "kind": self.kinds[position]}
        return Source(
            dataset,
            self.roots[dataset],
            size=self.sizes[position],
            modified=self.modified[position],
            **fields,
        )


class ListingBuilder:
    """Collects the sources of a listing."""

    def __init__(self, arguments: tuple[Argument, ...] = (), roots: Mapping[str, str] | None = None) -> None:
        self._arguments, self._roots = arguments, dict(roots or {})
        self._datasets: list[str] = []
        self._paths: list[str] = []
        self._kinds: list[Kind] = []
        self._sizes: list[int | None] = []
        self._modified: list[int | None] = []
        self._described = Descriptions()
        self._passed_over: dict[Argument, int] = {}
        self._unused: dict[Argument, UnusedCounts] = {}

    def add(
        self,
        dataset: str,
        path: str,
        kind: Kind,
        size: int | None,
        modified: int | None,
        row: ManifestRow | None = None,
    ) -> None:
        """Add a source; `row` is its row in a manifest."""
        if row is not None:
            self._described.add(len(self._paths), row)
        self._datasets.append(dataset)
        self._paths.append(path)
        self._kinds.append(kind)
        self._sizes.append(size)
        self._modified.append(modified)

    def pass_over(self, argument: Argument, path: str) -> None:
        """Count a file of an argument that is not read."""
        self._passed_over[argument] = self._passed_over.get(argument, 0) + 1
        self.leave_unused(argument, Unused("ignored_files", suffix_of(path), example=printable(path)))

    def leave_unused(self, argument: Argument, unused: Unused) -> None:
        """Count a part of an argument that is not used."""
        add_unused(self._unused.setdefault(argument, {}), unused)

    def build(self) -> Listing:
        """The finished listing; add nothing afterwards."""
        return Listing(
            self._arguments,
            self._roots,
            self._datasets,
            self._paths,
            self._kinds,
            self._sizes,
            self._modified,
            self._described,
            self._passed_over,
            self._unused,
        )


def list_sources(
    arguments: tuple[Argument, ...],
    roots: Mapping[str, str],
    kinds: tuple[Kind, ...],
    output: str | Path | None = None,
    reads: Reads | None = None,
    encoding: str | None = None,
) -> Listing:
    """List the files that `arguments` name.

    Hidden files, records of jobs, and the output of this job are left out; links are followed, each folder once.

    Args:
        arguments: from `parse_arguments`.
        roots: of their datasets.
        kinds: to list.
        output: folder that the job writes.
        reads: chooses the files to list, instead of `kinds`.
        encoding: of manifests without a byte-order mark; None for UTF-8.

    Raises:
        InputError: a folder or manifest cannot be read, or there is nothing to read.
    """
    builder = ListingBuilder(arguments, roots)
    for argument in arguments:
        root = roots[argument.dataset]
        if argument.kind == "manifest":
            _list_manifest(argument, root, builder, encoding)
            continue
        others: list[FoundFile] = []
        for file in find_files(argument, root, None if output is None else str(output)):
            kind = kind_of(file.path)
            read = _is_wanted(kind, file.path, kinds) if reads is None else reads(argument, file.path, kind)
            if kind is not None and read:
                builder.add(argument.dataset, file.path, kind, file.size, file.modified)
            elif kind is None and "unknown" in kinds:
                others.append(file)
            else:
                builder.pass_over(argument, file.path)
            if len(others) == HELD_FILES:
                _probe(others, argument, root, builder)
                others.clear()
        _probe(others, argument, root, builder)
    listing = builder.build()
    if not listing.paths:
        wanted = "audio files, tars or Parquet files" if "tar" in kinds else "audio files"
        if "audio" not in kinds:
            wanted = "Parquet files or JSON lines" if "lines" in kinds else "Parquet files"
        raise InputError(f"There are no {wanted} in {', '.join(sorted(set(roots.values())))}.")
    return listing


def _is_wanted(kind: Kind | None, path: str, kinds: tuple[Kind, ...]) -> bool:
    return kind in kinds or ("audio" in kinds and is_film_path(path))


def _probe(files: Sequence[FoundFile], argument: Argument, root: str, builder: ListingBuilder) -> None:
    """Add the files that are audio in spite of their names, and pass over the others."""
    for file, is_audio in with_audio(root, files):
        if is_audio:
            builder.add(argument.dataset, file.path, "unknown", file.size, file.modified)
        else:
            builder.pass_over(argument, file.path)


def _list_manifest(argument: Argument, root: str, builder: ListingBuilder, encoding: str | None) -> None:
    size = modified = previous = None

    def leave_out(name: str) -> None:
        builder.leave_unused(argument, Unused("columns", name, example=argument.pattern))

    for row in read_manifest(root, argument.pattern, encoding, leave_out):
        if row.path == previous:
            row = row._replace(path=previous)  # in memory once
        else:
            previous = row.path
            size = modified = None
            if not is_url(root) and not is_url(previous):
                # Text, since making a `Path` for each of a million rows takes longer than everything else.
                place = previous if previous.startswith("/") else f"{root}/{previous}"
                size, modified = local_size_and_time(functools.partial(os.stat, place))
        # Files in a manifest are audio, whatever their names.
        builder.add(argument.dataset, row.path, container_kind(row.path) or "audio", size, modified, row)
