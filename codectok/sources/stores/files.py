"""Opens and fetches files at URLs."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from codectok.seekable import SeekableReader
from codectok.storage import open_file_system

from .faults import patiently
from .web import download, is_web, look_at, read_range, too_large

BLOCK = 1 << 22
# A file of a web server that cannot answer with parts is copied as a whole to the temporary folder.
MAX_COPY_BYTES = 1 << 34


def fetch(url: str, max_bytes: int, size: int | None = None) -> bytes:
    """Return the contents of a file.

    Args:
        url: address of the file.
        max_bytes: more are not read.
        size: from a listing of the store; None if unknown.

    Raises:
        AudioError: it cannot be fetched ("unreadable", or "unreachable" if this may pass), or is "too_large".
        OSError: the disk of this machine failed.
    """
    if is_web(url):
        with patiently(lambda: download(url, max_bytes), url) as file:
            return file.read()
    files, path = patiently(lambda: open_file_system(url), url)
    found = patiently(lambda: files.info(path), url).get("size") if size is None else size
    if found is not None and found > max_bytes:
        raise too_large(url, found, max_bytes)
    data: bytes = patiently(lambda: files.cat_file(path), url)
    return data


def open_url(url: str) -> BinaryIO:
    """Open a file for reading and seeking, in blocks; reading raises the errors of `fetch` too.

    Raises:
        AudioError: it cannot be opened.
    """
    if not is_web(url):
        files, path = patiently(lambda: open_file_system(url), url)
        opened = patiently(lambda: files.open(path, "rb"), url)
        return io.BufferedReader(_store_file(opened, url), BLOCK)
    found = patiently(lambda: look_at(url), url)
    if found.has_ranges:
        remote = _RemoteFile(found.url, found.size or 0, lambda start, end: read_range(found.url, start, end))
        return io.BufferedReader(remote, BLOCK)
    return patiently(lambda: download(url, _room()), url)


def info_of(url: str) -> dict[str, Any]:
    """Size and further facts about a file, as fsspec names them.

    Raises:
        AudioError: it cannot be reached.
    """
    if is_web(url):
        return {"size": patiently(lambda: look_at(url), url).size}
    files, path = patiently(lambda: open_file_system(url), url)
    files.invalidate_cache()  # it may hold the listing
    info: dict[str, Any] = patiently(lambda: files.info(path), url)
    return info


def _room() -> int:
    """Bytes that a copy may take: half of the free space of the temporary folder at most."""
    return min(MAX_COPY_BYTES, shutil.disk_usage(tempfile.gettempdir()).free // 2)


class _RemoteFile(SeekableReader):
    """A file at a URL, read in blocks.

    Args:
        url: named in errors.
        size: in bytes.
        read: returns the bytes from a start to an end.
        close: called when this file is closed.
    """

    def __init__(
        self, url: str, size: int, read: Callable[[int, int], bytes], close: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(size)
        self._url, self._read_range, self._close = url, read, close

    def close(self) -> None:
        self._close()
        super().close()

    def _read(self, wanted: int) -> bytes:
        start, end = self._position, min(self._position + min(wanted, BLOCK), self._size)
        return patiently(lambda: self._read_range(start, end), self._url) if start < end else b""


def _store_file(file: Any, url: str) -> _RemoteFile:
    """Return an open file of fsspec whose reads are tried again."""

    def read(start: int, end: int) -> bytes:
        file.seek(start)
        return cast(bytes, file.read(end - start))

    return _RemoteFile(url, patiently(lambda: int(file.seek(0, io.SEEK_END)), url), read, file.close)
