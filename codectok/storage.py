"""Folders of files on a disk or, by URL, in an object store."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from .atomic import replacing, temporary_folder
from .errors import InputError
from .names import utf8_path
from .store_listing import list_store

# Marks the folder of an attempt in stores that have no empty folders.
STARTED = "started"
# Of an answer of a web server that is held in memory, such as the listing of a folder.
MAX_ANSWER_BYTES = 1 << 26


def is_url(text: str) -> bool:
    """Return True if `text` is a URL such as s3://bucket/folder and not a local path."""
    return "://" in text


def open_file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of `url` and the path in it.

    Raises:
        InputError: fsspec has no file system for the URL, or its package is not installed.
    """
    try:
        is_web = url.lower().startswith(("http://", "https://"))
        options = {"get_client": bounded_client} if is_web and "http" not in fsspec.config.conf else {}
        found: tuple[Any, str] = fsspec.core.url_to_fs(url, **options)
        return found
    except (ImportError, ValueError) as error:
        raise InputError(f"{url} cannot be reached: {error}.") from None


async def bounded_client(**options: Any) -> Any:
    """Create a client of web servers for fsspec that reads at most `MAX_ANSWER_BYTES` of an answer into memory."""
    import aiohttp

    class BoundedResponse(aiohttp.ClientResponse):
        async def read(self) -> bytes:
            if self._body is None:
                body = bytearray()
                while chunk := await self.content.read(MAX_ANSWER_BYTES + 1 - len(body)):
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        self.close()
                        raise ValueError(f"{self.url} answers with more than {MAX_ANSWER_BYTES:,} bytes")
                self._body = bytes(body)
            return self._body

    return aiohttp.ClientSession(response_class=BoundedResponse, **options)


@dataclass(frozen=True)
class Range:
    """A range of `size` bytes in a file, from `offset` on."""

    name: str
    offset: int
    size: int


class Storage(ABC):
    """A folder of files, which are named by their path relative to the folder, with "/".

    Attributes:
        url: URL or path of the folder, for messages.
        address: URL or absolute path, for processes that run elsewhere.
    """

    url: str
    address: str

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Open a file for reading; raise `FileNotFoundError` if it does not exist."""

    def read(self, name: str) -> bytes:
        """Return the contents of a file."""
        with self.open(name) as file:
            return file.read()

    @abstractmethod
    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read ranges of files; a range is shorter if its file ends early."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a small file, completely or not at all."""

    @abstractmethod
    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the size in bytes of each file in and below `folder`, sorted by name; empty if it does not exist."""

    @abstractmethod
    def move(self, name: str, target: str) -> None:
        """Move a file to `target`, and replace a file there."""

    @abstractmethod
    def remove_file(self, name: str) -> None:
        """Delete a file if it exists."""

    @abstractmethod
    def remove(self, folder: str) -> None:
        """Delete a folder and its contents if it exists."""

    def remove_if_empty(self) -> None:
        """Delete this folder if it is empty and the storage has empty folders."""

    @abstractmethod
    def staging(self, name: str) -> Any:
        """Return a context manager that yields a new local folder, whose files are in the folder `name` at its end.

        The folder `name` exists from the start of the context, so that an attempt that was killed leaves a trace.
        """

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Return the free space in bytes; None if unknown."""


class LocalStorage(Storage):
    """A folder on a local disk or a shared file system."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.url = str(path)
        self.address = str(self.path)

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        return (self.path / name).open("rb")

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read ranges of files one after the other."""
        parts = []
        for part in ranges:
            with (self.path / part.name).open("rb", buffering=0) as file:
                file.seek(part.offset)
                parts.append(file.read(part.size))
        return parts

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, completely or not at all."""
        with replacing(self.path / name) as temporary:
            temporary.write_bytes(data)

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the size in bytes of each file in and below `folder`, sorted by name."""
        found = {}
        for parent, _, names in os.walk(self.path / folder):
            for name in names:
                path = Path(parent) / name
                # Other processes may delete files while this one lists them.
                with suppress(FileNotFoundError):
                    found[path.relative_to(self.path).as_posix()] = path.stat().st_size
        return dict(sorted(found.items()))

    def move(self, name: str, target: str) -> None:
        """Move a file to `target`, and sync the folder to the disk."""
        path = self.path / target
        path.parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove_file(self, name: str) -> None:
        """Delete a file if it exists."""
        (self.path / name).unlink(missing_ok=True)

    def remove(self, folder: str) -> None:
        """Delete a folder and its contents if it exists."""
        shutil.rmtree(self.path / folder, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Delete this folder if it is empty."""
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """Yield the folder `name` itself."""
        folder = self.path / name
        folder.mkdir(parents=True)
        with utf8_path(folder) as written:
            yield written

    def free_bytes(self) -> int | None:
        """Return the free space of the file system in bytes."""
        existing = next(parent for parent in (self.path, *self.path.parents) if parent.exists())
        return shutil.disk_usage(existing).free


class RemoteStorage(Storage):
    """A folder in an object store or any other file system of fsspec, where files appear completely or not at all."""

    def __init__(self, url: str) -> None:
        self.url = self.address = url
        self._root = open_file_system(url)[1]
        try:
            self._files.exists(self._root)
        except Exception as error:  # each client of a store has its own errors
            raise InputError(f"{url} cannot be reached: {error}.") from None

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        file: BinaryIO = self._files.open(self._path(name), "rb")
        return file

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read ranges of files, in parallel if the store supports it."""
        paths = [self._path(part.name) for part in ranges]
        ends = [part.offset + part.size for part in ranges]
        data: list[bytes] = self._files.cat_ranges(paths, [part.offset for part in ranges], ends, on_error="raise")
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write a small file."""
        self._files.pipe_file(self._path(name), data)

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the size in bytes of each file in and below `folder`, sorted by name."""
        prefix = self._path("")
        found = list_store(self._files, self._path(folder))
        return dict(sorted((path.removeprefix(prefix).lstrip("/"), info["size"]) for path, info in found))

    def move(self, name: str, target: str) -> None:
        """Move a file to `target` by a copy within the store."""
        self._files.cp_file(self._path(name), self._path(target))
        self._files.rm_file(self._path(name))

    def remove_file(self, name: str) -> None:
        """Delete a file if it exists."""
        with suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def remove(self, folder: str) -> None:
        """Delete a folder and its contents if it exists."""
        self._files.invalidate_cache()
        if self._files.exists(self._path(folder)):
            self._files.rm(self._path(folder), recursive=True)

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """Yield a temporary local folder, and upload its files at the end."""
        self.write(f"{name}/{STARTED}", b"")
        with temporary_folder("codectok-staging") as folder:
            yield folder
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                self._files.put_file(str(path), self._path(f"{name}/{path.relative_to(folder).as_posix()}"))

    def free_bytes(self) -> int | None:
        """Return None: the free space is unknown."""
        return None

    @property
    def _files(self) -> Any:
        # fsspec caches file systems, one per process: a file system does not work in a forked process.
        return open_file_system(self.url)[0]

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}".rstrip("/")


def open_storage(place: str | Path) -> Storage:
    """Open the folder at a path or URL, which need not exist.

    Raises:
        InputError: `place` is empty.
    """
    if isinstance(place, str) and is_url(place) and not place.startswith("file://"):
        return RemoteStorage(place)
    folder = str(place).removeprefix("file://")
    if not folder:
        raise InputError("The name of a folder is empty; give a path or a URL, or . for the current folder.")
    return LocalStorage(Path(folder))
