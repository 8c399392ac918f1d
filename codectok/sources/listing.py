"""Listing what a job is to read: folders, patterns, files and manifests. No audio file is opened here."""

from __future__ import annotations

import functools
import heapq
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from codectok.errors import InputError
from codectok.names import JOB_FOLDER
from codectok.storage import is_url, open_file_system

from .arguments import Argument
from .manifests import ManifestRow, read_manifest
from .source import CONTAINERS, Kind, container_kind, estimated_seconds, kind_of, size_and_time

Reads = Callable[[Argument, str, Kind | None], bool]
"""Whether a file that an argument names is read, by its path below the root and what its name promises."""


class Descriptions:
    """What manifests say of sources, by their position in a listing.

    Columns, with None where nothing is said: an object for each of many million rows would take several times the room.
    """

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in ManifestRow._fields}

    def add(self, position: int, row: ManifestRow) -> None:
        """Describe the source at `position`, which lies behind all that are described already."""
        for column, value in zip(self._columns.values(), row, strict=True):
            column.extend([None] * (position - len(column)))
            column.append(value)

    def get(self, position: int) -> ManifestRow | None:
        """What is said of a source, if anything is."""
        paths = self._columns["path"]
        if position >= len(paths) or paths[position] is None:
            return None
        return ManifestRow(*[column[position] for column in self._columns.values()])

    def column(self, name: str, positions: Iterable[int]) -> list[Any]:
        """One thing that is said, of each of several sources."""
        column = self._columns[name]
        return [column[position] if position < len(column) else None for position in positions]


@dataclass(slots=True)
class Listing:
    """Columns of all sources found, in no order yet; `described` holds what manifests say, `ranges` which
    bytes of a container are meant, both by position.

    Attributes:
        roots: the folder or URL of every dataset.
        passed_over: how many files each argument names that are no audio.
    """

    arguments: tuple[Argument, ...] = ()
    roots: dict[str, str] = field(default_factory=dict)
    datasets: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    sizes: list[int | None] = field(default_factory=list)
    modified: list[int | None] = field(default_factory=list)
    described: Descriptions = field(default_factory=Descriptions)
    ranges: dict[int, tuple[int, int]] = field(default_factory=dict)
    passed_over: dict[Argument, int] = field(default_factory=dict)

    @property
    def ignored(self) -> int:
        """Files that were passed over."""
        return sum(self.passed_over.values())

    def add(self, dataset: str, path: str, kind: Kind, size: int | None, modified: int | None) -> None:
        """Append a file."""
        self.datasets.append(dataset)
        self.paths.append(path)
        self.kinds.append(kind)
        self.sizes.append(size)
        self.modified.append(modified)

    def split_containers(self, unit_seconds: float) -> None:
        """Replace tars and Parquet files that hold several units' work by ranges of their bytes."""
        for i in range(len(self.paths)):
            size, kind = self.sizes[i], self.kinds[i]
            if size is None or kind not in CONTAINERS or i in self.ranges or not self._can_be_split(i):
                continue
            parts = round(estimated_seconds(self.paths[i], size) / unit_seconds)
            borders = [size * part // max(1, parts) for part in range(parts + 1)]
            for number, (first, last) in enumerate(itertools.pairwise(borders)) if parts > 1 else ():
                if number == 0:
                    self.ranges[i] = (first, last)
                else:
                    self.ranges[len(self.paths)] = (first, last)
                    self.add(self.datasets[i], self.paths[i], kind, size, self.modified[i])

    def bytes_of(self, i: int) -> int | None:
        """Size of a file, or of the range of it."""
        if i in self.ranges:
            first, last = self.ranges[i]
            return last - first
        return self.sizes[i]

    def _can_be_split(self, i: int) -> bool:
        # To find a sample of a tar, all headers before it are read: too many requests for a store. And gzip has no
        # places to begin at.
        path = self.paths[i]
        local = not is_url(path) and not is_url(self.roots[self.datasets[i]])
        return self.kinds[i] == "parquet" or (local and path.lower().endswith(".tar"))


def list_sources(
    arguments: tuple[Argument, ...],
    roots: dict[str, str],
    kinds: tuple[Kind, ...],
    output: str | Path | None = None,
    reads: Reads | None = None,
) -> Listing:
    """List all files of `kinds` that `arguments` name; with `reads`, those of which that is true.

    Hidden files, the folders in which jobs keep their records and the folder `output`, which the job itself writes,
    are left out; links are followed, each folder once.

    Raises:
        InputError: a folder or manifest that cannot be read, or nothing to read at all.
    """
    listing = Listing(arguments, roots)
    for argument in arguments:
        root = roots[argument.dataset]
        if argument.kind == "manifest":
            _list_manifest(argument, root, listing)
            continue
        list_files = _list_remote if is_url(root) else _list_local
        ignored = 0
        for path, size, modified in list_files(argument, root, None if output is None else str(output)):
            kind = kind_of(path)
            read = kind in kinds if reads is None else reads(argument, path, kind)
            if kind is None or not read:
                ignored += 1
            else:
                listing.add(argument.dataset, path, kind, size, modified)
        listing.passed_over[argument] = ignored
    if not listing.paths:
        wanted = "audio files, tars or Parquet files" if "tar" in kinds else "audio files"
        if "audio" not in kinds:
            wanted = "Parquet files or JSON lines" if "lines" in kinds else "Parquet files"
        raise InputError(f"There are no {wanted} in {', '.join(sorted(set(roots.values())))}.")
    return listing


Found = Iterator[tuple[str, int | None, int | None]]


def _list_local(argument: Argument, root: str, output: str | None) -> Found:
    own = None if output is None or is_url(output) else Path(output).resolve()
    if argument.kind == "folder":
        yield from _walk(root, [""], own)
    elif argument.kind == "glob":
        yield from _glob(root, argument.pattern, own)
    elif not _is_within(Path(root), own):
        yield argument.pattern, *_size_and_time((Path(root) / argument.pattern).stat)


def _glob(root: str, pattern: str, output: Path | None) -> Found:
    """All files that match, or are in or below a folder that does; of a folder with several names only one."""
    folders = []
    files: dict[Path, list[Path]] = {}
    for path in Path(root).glob(pattern):
        name = path.relative_to(root).as_posix()
        if any(part == JOB_FOLDER or part.startswith(".") for part in name.split("/")):
            continue
        if path.is_dir():
            folders.append(name + "/")
        else:
            files.setdefault(path.parent, []).append(path)
    entered = set()
    for linked, folder in sorted((_is_linked(folder), folder) for folder in files):
        real = folder.resolve() if linked else folder
        if real not in entered and not _is_within(folder, output):
            entered.add(real)
            for path in files[folder]:
                yield path.relative_to(root).as_posix(), *_size_and_time(path.stat)
    yield from _walk(root, folders, output)


def _walk(root: str, folders: Iterable[str], output: Path | None) -> Found:
    """All files in and below `folders` of `root`, each folder once."""
    # Real folders come before those that links lead to: a new link must not give files that are known another name.
    pending = [(_is_linked(Path(root) / prefix), prefix) for prefix in folders]
    pending = [(linked, prefix) for linked, prefix in pending if not _is_within(Path(root) / prefix, output)]
    heapq.heapify(pending)
    entered = set()  # a link can lead back up
    if output is not None and output.exists():
        entered.add(_identity(output.stat()))
    while pending:
        linked, prefix = heapq.heappop(pending)
        folder = Path(root) / prefix
        if linked and _is_within(folder, output):
            continue
        try:
            identity = _identity(folder.stat())
            if identity in entered:
                continue
            entered.add(identity)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise InputError(f"The folder {folder} cannot be listed: {error.strerror}.") from None
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = prefix + entry.name
            if _is_folder(entry):
                if entry.name != JOB_FOLDER:
                    heapq.heappush(pending, (entry.is_symlink(), path + "/"))
            elif entry.is_symlink() or entry.is_file():
                # A link that leads nowhere is listed too: its unit will reject it by name.
                yield path, *_size_and_time(entry.stat)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_linked(folder: Path) -> bool:
    """Whether a link lies on the way from a root, which is resolved, to a folder below it."""
    return folder.resolve() != folder


def _is_within(folder: Path, output: Path | None) -> bool:
    return output is not None and folder.resolve().is_relative_to(output)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _size_and_time(look: Callable[[], os.stat_result]) -> tuple[int | None, int | None]:
    try:
        found = look()
    except OSError:
        return None, None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else (None, None)


def _list_remote(argument: Argument, root: str, output: str | None) -> Found:
    files, path = open_file_system(root)
    path = path.rstrip("/")
    own = None
    if output is not None and is_url(output):
        other, place = open_file_system(output)
        own = place.rstrip("/") + "/" if other == files else None
    elif output is not None and isinstance(files, LocalFileSystem):
        own = f"{Path(output).resolve()}/"
    try:
        found: dict[str, dict[str, Any]]
        if argument.kind == "folder":
            found = files.find(path, detail=True)
        elif argument.kind == "glob":
            found = files.glob(f"{path}/{argument.pattern}", detail=True)
        else:
            found = {f"{path}/{argument.pattern}": files.info(f"{path}/{argument.pattern}")}
    except Exception as error:  # every store's client has errors of its own
        raise InputError(f"{root} cannot be listed: {error}.") from None
    for name, info in sorted(found.items()):
        if own is not None and name.startswith(own):
            continue
        relative = name.removeprefix(path).lstrip("/")
        parts = relative.split("/")
        if info["type"] == "file" and JOB_FOLDER not in parts and not any(part.startswith(".") for part in parts):
            yield relative, *size_and_time(info)


def _list_manifest(argument: Argument, root: str, listing: Listing) -> None:
    size = modified = previous = None
    for row in read_manifest(root, argument.pattern):
        if row.path == previous:
            row = row._replace(path=previous)  # in memory once
        else:
            previous = row.path
            size = modified = None
            if not is_url(root) and not is_url(previous):
                # Text, since a `Path` for each of a million rows takes longer than all the rest.
                place = previous if previous.startswith("/") else f"{root}/{previous}"
                size, modified = _size_and_time(functools.partial(os.stat, place))
        listing.described.add(len(listing.paths), row)
        # Whoever lists a file says that it is audio, whatever it is called.
        listing.add(argument.dataset, row.path, container_kind(row.path) or "audio", size, modified)
