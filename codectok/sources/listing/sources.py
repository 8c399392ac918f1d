"""Lists the sources of a job: folders, patterns, files and manifests.

No audio file is opened; of text, images and the like the first bytes are read, in case that they are audio.
"""

from __future__ import annotations

import functools
import os
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from codectok.audio.files import is_film_path
from codectok.errors import InputError
from codectok.names import printable
from codectok.sources.corpora.folder_labels import described_by_folders, labelled_end
from codectok.sources.corpora.reading import Found, ReadAs, read_folders, read_named
from codectok.sources.corpora.registry import row_of_tar
from codectok.sources.encodings import check_encoding
from codectok.sources.kinds import CONTAINERS, Kind, container_kind, kind_of, suffix_of
from codectok.sources.manifests.read import MANIFEST_NAMES, MANIFEST_SUFFIXES
from codectok.sources.manifests.row import ManifestRow
from codectok.sources.manifests.text_files import place_of
from codectok.sources.source import Source
from codectok.sources.unused import Unused, UnusedCounts, UnusedEntry, add_unused, sum_entries
from codectok.storage import is_url

from .arguments import Argument
from .found import FoundFile, IntegerColumn
from .probing import with_audio
from .walk import find_files, local_size_and_time

T = TypeVar("T")

# Files that are probed together.
HELD_FILES = 1 << 14
CHANNELS = range(1 << 16)  # that a row may name

Reads = Callable[[Argument, str, Kind | None], bool]
"""True for files to read, by the argument that names them, their path below the root, and their kind."""

LayoutCounts = dict[str, UnusedEntry]
"""Files that describe a corpus, by the name of its layout."""

# Fields of a row that describe a clip, not all samples of a tar.
FIELDS_OF_CLIPS = ("start", "end", "id", "text", "supervisions", "channel")


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

    def drop(self, positions: Collection[int]) -> None:
        """Remove sources; the ones behind them move up."""
        for name, column in self._columns.items():
            self._columns[name] = _without(column, positions)

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
        datasets, paths, kinds, sizes, modified, contents: one entry per source; see `Source`.
        described: rows of manifests.
        passed_over: number of files that each argument names and that are not read.
        unused: these files by suffix, and other parts of the input that are not used, for each argument.
        layouts: of corpora that were recognised, for each argument.
    """

    arguments: tuple[Argument, ...]
    roots: Mapping[str, str]
    datasets: Sequence[str]
    paths: Sequence[str]
    kinds: Sequence[Kind]
    sizes: IntegerColumn
    modified: IntegerColumn
    contents: IntegerColumn
    described: Descriptions
    passed_over: Mapping[Argument, int]
    unused: Mapping[Argument, UnusedCounts]
    layouts: Mapping[Argument, LayoutCounts]

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
        self._sizes, self._modified, self._contents = IntegerColumn(), IntegerColumn(), IntegerColumn()
        self._described = Descriptions()
        self._passed_over: dict[Argument, int] = {}
        self._unused: dict[Argument, UnusedCounts] = {}
        self._layouts: dict[Argument, LayoutCounts] = {}

    def add(
        self,
        dataset: str,
        path: str,
        kind: Kind,
        size: int | None,
        modified: int | None,
        row: ManifestRow | None = None,
        content: int | None = None,
    ) -> None:
        """Add a source; `row` is its row in a manifest."""
        if row is not None:
            self._described.add(len(self._paths), row)
        self._datasets.append(dataset)
        self._paths.append(path)
        self._kinds.append(kind)
        self._sizes.append(size)
        self._modified.append(modified)
        self._contents.append(content)

    @property
    def count(self) -> int:
        """Number of sources so far."""
        return len(self._paths)

    def drop_covered(self, alone: Iterable[int], covered: Collection[str]) -> None:
        """Remove the sources at the positions `alone` whose paths are `covered` by rows of other sources."""
        positions = {position for position in alone if self._paths[position] in covered}
        if not positions:
            return
        self._datasets, self._paths = _without(self._datasets, positions), _without(self._paths, positions)
        self._kinds, self._sizes = _without(self._kinds, positions), self._sizes.without(positions)
        self._modified, self._contents = self._modified.without(positions), self._contents.without(positions)
        self._described.drop(positions)

    def pass_over(self, argument: Argument, path: str) -> None:
        """Count a file of an argument that is not read."""
        self._passed_over[argument] = self._passed_over.get(argument, 0) + 1
        self.leave_unused(argument, Unused("ignored_files", suffix_of(path), example=printable(path)))

    def leave_unused(self, argument: Argument, unused: Unused) -> None:
        """Count a part of an argument that is not used."""
        add_unused(self._unused.setdefault(argument, {}), unused)

    def recognise(self, argument: Argument, read_as: ReadAs) -> None:
        """Count files of an argument that are read as a layout."""
        entry = UnusedEntry(count=read_as.count, example=read_as.example)
        self._layouts[argument] = sum_entries([self._layouts.get(argument, {}), {read_as.layout: entry}])

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
            self._contents,
            self._described,
            self._passed_over,
            self._unused,
            self._layouts,
        )


def _without(column: list[T], positions: Collection[int]) -> list[T]:
    return [value for position, value in enumerate(column) if position not in positions]


def list_sources(
    arguments: tuple[Argument, ...],
    roots: Mapping[str, str],
    kinds: tuple[Kind, ...],
    output: str | Path | None = None,
    reads: Reads | None = None,
    strict: bool = False,
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
        strict: refuse lines of manifests that cannot be used; otherwise they are listed with their `problem`.
        encoding: of manifests and texts without a byte-order mark; None for UTF-8.

    Raises:
        InputError: a folder or manifest cannot be read, or there is nothing to read.
    """
    encoding = None if encoding is None else check_encoding(encoding)
    builder = ListingBuilder(arguments, roots)
    for argument in arguments:
        root = roots[argument.dataset]
        rows = _SourceAdder(argument, root, builder, kinds, strict)
        if argument.kind == "manifest":
            for _ in rows.add(read_named(root, argument.pattern, encoding)):
                pass  # all are rows
            continue
        files = find_files(argument, root, None if output is None else str(output))
        with_words = argument.kind == "folder" and "audio" in kinds
        others: list[FoundFile] = []
        covered: set[str] = set()
        alone = array("q")  # positions of files that no row describes so far
        for file in rows.add(read_folders(root, files, covered, encoding)) if with_words else files:
            kind = kind_of(file.path)
            read = _is_wanted(kind, file.path, kinds) if reads is None else reads(argument, file.path, kind)
            if read and (kind is not None or reads is not None):
                if with_words:
                    alone.append(builder.count)
                rows.add_file(
                    file, kind or "unknown", row_of_tar(root, file.path) if kind == "tar" and not with_words else None
                )
            elif kind is None and "unknown" in kinds:
                others.append(file)
            else:
                builder.pass_over(argument, file.path)
            if len(others) == HELD_FILES:
                rows.probe(others)
                others.clear()
        rows.probe(others)
        builder.drop_covered(alone, covered)
    listing = builder.build()
    if not listing.paths:
        raise InputError(_nothing_to_read(listing, kinds))
    return listing


def _nothing_to_read(listing: Listing, kinds: tuple[Kind, ...]) -> str:
    roots = listing.roots
    named = next((one for one in listing.arguments if one.kind in ("manifest", "file")), None)
    where = "" if named is None else place_of(roots[named.dataset], named.pattern)
    if named is not None and named.kind == "manifest" and not listing.ignored:
        return f"The manifest {where} has no rows."
    if named is not None and named.kind == "file" and "audio" in kinds:
        known = ", ".join((*(suffix for suffix in MANIFEST_SUFFIXES if not suffix.endswith(".gz")), *MANIFEST_NAMES))
        return f"{where} has no audio, nor the name of a manifest; these end in {known}, the first four also with .gz."
    wanted = "audio files, tars or Parquet files" if "tar" in kinds else "audio files"
    if "audio" not in kinds:
        wanted = "Parquet files or JSON lines" if "lines" in kinds else "Parquet files"
    return f"There are no {wanted} in {', '.join(sorted(set(roots.values())))}."


def _is_wanted(kind: Kind | None, path: str, kinds: tuple[Kind, ...]) -> bool:
    return kind in kinds or ("audio" in kinds and is_film_path(path))


class _SourceAdder:
    """Adds the rows of manifests and the files of an argument to a listing."""

    def __init__(
        self, argument: Argument, root: str, builder: ListingBuilder, kinds: tuple[Kind, ...], strict: bool
    ) -> None:
        self._argument, self._root, self._builder = argument, root, builder
        self._kinds, self._strict = kinds, strict
        self._above = "" if argument.kind == "manifest" else labelled_end(root)
        self._previous: str | None = None
        self._size: int | None = None
        self._modified: int | None = None

    def add(self, found: Iterable[Found]) -> Iterator[FoundFile]:
        """Add the rows and notes in `found`, and yield the files."""
        for one in found:
            if isinstance(one, FoundFile):
                yield one
            elif isinstance(one, ManifestRow):
                self._add(one)
            elif isinstance(one, Unused):
                self._builder.leave_unused(self._argument, one)
            else:
                self._builder.recognise(self._argument, one)

    def add_file(self, file: FoundFile, kind: Kind, row: ManifestRow | None = None) -> None:
        """Add a file, with the labels in its path."""
        described = described_by_folders(row, file.path, self._above) if "audio" in self._kinds else None
        self._builder.add(self._argument.dataset, file.path, kind, file.size, file.modified, described, file.content)

    def probe(self, files: Sequence[FoundFile]) -> None:
        """Add the files that are audio in spite of their names, and pass over the others."""
        for file, is_audio in with_audio(self._root, files):
            if is_audio:
                self.add_file(file, "unknown")
            else:
                self._builder.pass_over(self._argument, file.path)

    def _add(self, row: ManifestRow) -> None:
        if row.channel is not None and row.channel not in CHANNELS:
            problem = f"{printable(row.path)} cannot be used: a file has no channel {float(row.channel):g}."
            row = ManifestRow(row.path, problem=problem)
        if row.problem is not None and self._strict:
            raise InputError(row.problem)
        # Files in a manifest are audio, whatever their names.
        kind: Kind = (None if row.problem is not None else container_kind(row.path)) or "audio"
        if kind in CONTAINERS:
            if kind not in self._kinds:
                self._builder.pass_over(self._argument, row.path)
                return
            for name in FIELDS_OF_CLIPS if row.companion is None else ():
                if getattr(row, name) is not None:
                    unused = Unused("columns", f"{name} of a tar or Parquet file", example=printable(row.path))
                    self._builder.leave_unused(self._argument, unused)
        if row.path == self._previous:
            row = row._replace(path=self._previous)  # in memory once
        else:
            self._previous = row.path
            self._size = self._modified = None
            if not is_url(self._root) and not is_url(row.path):
                # Text, since making a `Path` for each of a million rows takes longer than everything else.
                place = row.path if row.path.startswith("/") else f"{self._root}/{row.path}"
                self._size, self._modified = local_size_and_time(functools.partial(os.stat, place))
        described = described_by_folders(row, row.path, self._above) or row
        self._builder.add(self._argument.dataset, row.path, kind, self._size, self._modified, described)
