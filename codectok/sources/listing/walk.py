"""Finds files: in folders of this machine and in stores, by folder, pattern or name, without opening any."""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from codectok.errors import InputError
from codectok.names import JOB_FOLDER
from codectok.sources.contents import content_in_store
from codectok.sources.source import size_and_time
from codectok.storage import is_url, open_file_system
from codectok.store_listing import Entry, glob_store, list_store

from .arguments import Argument
from .found import FoundFile, folder_by_folder


def find_files(argument: Argument, root: str, output: str | None) -> Iterator[FoundFile]:
    """Find the files that `argument` names below `root`; hidden files, job folders and `output` are skipped.

    Links are followed, each folder once.

    Raises:
        InputError: a folder or store cannot be listed.
    """
    return (_find_remote if is_url(root) else _find_local)(argument, root, output)


def local_size_and_time(look: Callable[[], os.stat_result]) -> tuple[int | None, int | None]:
    """Bytes, and nanoseconds since 1970, of a regular file; None for other files and missing ones."""
    try:
        found = look()
    except OSError:
        return None, None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else (None, None)


def _find_local(argument: Argument, root: str, output: str | None) -> Iterator[FoundFile]:
    own = None if output is None or is_url(output) else Path(output).resolve()
    if argument.kind == "folder":
        yield from _walk(root, [""], own)
    elif argument.kind == "glob":
        yield from _glob(root, argument.pattern, own)
    elif not _is_within(Path(root), own):
        yield FoundFile(argument.pattern, *local_size_and_time((Path(root) / argument.pattern).stat))


def _glob(root: str, pattern: str, output: Path | None) -> Iterator[FoundFile]:
    """All files that match, or lie below a folder that matches; a folder with several names is entered once."""
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
                yield FoundFile(path.relative_to(root).as_posix(), *local_size_and_time(path.stat))
    yield from _walk(root, folders, output)


def _walk(root: str, folders: Iterable[str], output: Path | None) -> Iterator[FoundFile]:
    """All files below `folders` of `root`; each folder is entered once."""
    # Real folders come before linked ones: a new link must not rename files that are listed already.
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
                # A broken link is listed too: its unit rejects it by name.
                yield FoundFile(path, *local_size_and_time(entry.stat))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_linked(folder: Path) -> bool:
    """True if a link lies between a root, which is resolved, and a folder below it."""
    return folder.resolve() != folder


def _is_within(folder: Path, output: Path | None) -> bool:
    return output is not None and folder.resolve().is_relative_to(output)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _find_remote(argument: Argument, root: str, output: str | None) -> Iterator[FoundFile]:
    files, path = open_file_system(root)
    path = path.rstrip("/")
    own = None
    if output is not None and is_url(output):
        other, place = open_file_system(output)
        own = place.rstrip("/") + "/" if other == files else None
    elif output is not None and isinstance(files, LocalFileSystem):
        own = f"{Path(output).resolve()}/"

    def found() -> Iterator[FoundFile]:
        for name, info in _entries(argument, files, path):
            if own is not None and name.startswith(own):
                continue
            relative = name.removeprefix(path).lstrip("/")
            parts = relative.split("/")
            if JOB_FOLDER not in parts and not any(part.startswith(".") for part in parts):
                yield FoundFile(relative, *size_and_time(info), content_in_store(info))

    try:
        yield from folder_by_folder(found())
    except Exception as error:  # every store's client has its own errors
        raise InputError(f"{root} cannot be listed: {error}.") from None


def _entries(argument: Argument, files: Any, path: str) -> Iterable[Entry]:
    if argument.kind == "folder":
        return list_store(files, path)
    if argument.kind == "glob":
        return glob_store(files, path, argument.pattern)
    name = f"{path}/{argument.pattern}"
    info = files.info(name)
    return [(name, info)] if info["type"] == "file" else []
