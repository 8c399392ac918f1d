"""The folder that a job writes: on a disk or, by its URL, in an object store."""

from __future__ import annotations

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from .atomic import replacing
from .errors import InputError

# In the folder of an attempt, where folders do not exist of their own.
STARTED = "started"


def is_url(text: str) -> bool:
    """Whether `text` names a place that is no path of this machine, as in s3://bucket/folder."""
    return "://" in text


def open_file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of `url` and the path within it; `InputError` where there is none for it."""
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(f"{url} cannot be reached: {error}.") from None


@dataclass(frozen=True)
class Range:
    """`size` bytes of a file from `offset` on."""

    name: str
    offset: int
    size: int


class Storage(ABC):
    """A folder of files; names are relative to it, with "/"."""

    url: str

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Open a file for reading; `FileNotFoundError` if there is none."""

    def read(self, name: str) -> bytes:
        """The contents of a file."""
        with self.open(name) as file:
            return file.read()

    @abstractmethod
    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Parts of files, shorter where the file ends early."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a small file, whole or not at all."""

    @abstractmethod
    def sizes(self, folder: str = "") -> dict[str, int]:
        """Names and bytes of all files in and below `folder`, in order; empty if there is no such folder."""

    @abstractmethod
    def move(self, name: str, target: str) -> None:
        """Put a file into the place of `target`, at once."""

    @abstractmethod
    def remove_file(self, name: str) -> None:
        """Delete a file, if it is there."""

    @abstractmethod
    def remove(self, folder: str) -> None:
        """Delete a folder with all that is in it, if it is there."""

    def remove_if_empty(self) -> None:
        """Delete the folder itself if nothing is in it, where folders exist of their own."""

    @abstractmethod
    def staging(self, name: str) -> Any:
        """A context with a new folder on this machine, whose files lie in the folder `name` when it ends.

        The folder `name` is there from the beginning, so that it shows who began and did not come to an end.
        """

    @abstractmethod
    def free_bytes(self) -> int | None:
        """What can be written yet; None where nobody knows."""


class LocalStorage(Storage):
    """A folder on a disk of this machine or a file system that it shares with others."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.url = str(path)

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        return (self.path / name).open("rb")

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Parts of files, one after the other."""
        parts = []
        for part in ranges:
            with (self.path / part.name).open("rb", buffering=0) as file:
                file.seek(part.offset)
                parts.append(file.read(part.size))
        return parts

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, whole or not at all."""
        with replacing(self.path / name) as temporary:
            temporary.write_bytes(data)

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Names and bytes of all files in and below `folder`."""
        found = {}
        for parent, _, names in os.walk(self.path / folder):
            for name in names:
                path = Path(parent) / name
                # Others may be working in the folder: what is gone by now was never there.
                with suppress(FileNotFoundError):
                    found[path.relative_to(self.path).as_posix()] = path.stat().st_size
        return dict(sorted(found.items()))

    def move(self, name: str, target: str) -> None:
        """Put a file into the place of `target`, on disk for good."""
        path = self.path / target
        path.parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove_file(self, name: str) -> None:
        """Delete a file, if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def remove(self, folder: str) -> None:
        """Delete a folder with all that is in it, if it is there."""
        shutil.rmtree(self.path / folder, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Delete the folder itself if nothing is in it."""
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """The folder itself."""
        folder = self.path / name
        folder.mkdir(parents=True)
        yield folder

    def free_bytes(self) -> int | None:
        """What the file system has left."""
        existing = next(parent for parent in (self.path, *self.path.parents) if parent.exists())
        return shutil.disk_usage(existing).free


class RemoteStorage(Storage):
    """A folder in an object store, or whatever else fsspec reaches; a file appears there whole or not at all."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._root = open_file_system(url)[1]
        try:
            self._files.exists(self._root)
        except Exception as error:  # every store's client has errors of its own
            raise InputError(f"{url} cannot be reached: {error}.") from None

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        return self._files.open(self._path(name), "rb")

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Parts of files, all at once where the store can do that."""
        paths = [self._path(part.name) for part in ranges]
        ends = [part.offset + part.size for part in ranges]
        return self._files.cat_ranges(paths, [part.offset for part in ranges], ends, on_error="raise")

    def write(self, name: str, data: bytes) -> None:
        """Write a small file."""
        self._files.pipe_file(self._path(name), data)

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Names and bytes of all files in and below `folder`."""
        self._files.invalidate_cache()
        try:
            found = self._files.find(self._path(folder), detail=True)
        except FileNotFoundError:
            return {}
        prefix = self._path("")
        return {path.removeprefix(prefix).lstrip("/"): info["size"] for path, info in sorted(found.items())}

    def move(self, name: str, target: str) -> None:
        """Put a file into the place of `target`; the store copies it."""
        self._files.cp_file(self._path(name), self._path(target))
        self._files.rm_file(self._path(name))

    def remove_file(self, name: str) -> None:
        """Delete a file, if it is there."""
        with suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def remove(self, folder: str) -> None:
        """Delete a folder with all that is in it, if it is there."""
        self._files.invalidate_cache()
        if self._files.exists(self._path(folder)):
            self._files.rm(self._path(folder), recursive=True)

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """A temporary folder of this machine, whose files are then sent."""
        self.write(f"{name}/{STARTED}", b"")
        with tempfile.TemporaryDirectory(prefix="codectok-") as folder:
            yield Path(folder)
            for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
                self._files.put_file(str(path), self._path(f"{name}/{path.relative_to(folder).as_posix()}"))

    def free_bytes(self) -> int | None:
        """Nobody knows."""
        return None

    @property
    def _files(self) -> Any:
        # fsspec keeps them for us, and gives a process that was forked its own: a copied one does not work there.
        return open_file_system(self.url)[0]

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}".rstrip("/")


def open_storage(place: str | Path) -> Storage:
    """The folder at a path or URL, whether it exists or not."""
    if isinstance(place, str) and is_url(place) and not place.startswith("file://"):
        return RemoteStorage(place)
    return LocalStorage(Path(str(place).removeprefix("file://")))
