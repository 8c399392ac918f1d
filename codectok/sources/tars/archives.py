"""Members of tar archives: their contents, and links to other members."""

from __future__ import annotations

import contextlib
import io
import posixpath
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from types import SimpleNamespace
from typing import IO, BinaryIO

from codectok.names import printable
from codectok.sources.decompression import Decompressed, compression_of
from codectok.sources.stores.web import too_large

from .headers import BLOCK, Member, Unreadable, entries_of, is_header

MAX_LINKS = 16  # that lead to one another
COPY_BYTES = 1 << 20


class JoinedTars:
    """Reads a tar, and all that follow it in the same file.

    Args:
        file: open for reading and seeking, compressed or not.
        where: names the file in messages.
        max_bytes: largest member that is read.

    Raises:
        tarfile.TarError: it is not a tar.
    """

    def __init__(self, file: BinaryIO, where: str, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        start = file.read(BLOCK)
        file.seek(0)
        self._is_compressed = not is_header(start) and compression_of(start) is not None
        self._stream: IO[bytes] = file
        if self._is_compressed:
            self._stream = io.BufferedReader(Decompressed(file, where), COPY_BYTES)
        # Of members: a copy on the disk if links jump about in compressed data.
        self._contents: IO[bytes] = self._stream
        self._targets: dict[str, list[tarfile.TarInfo]] | None = None

    def entries(self) -> Iterator[Member | Unreadable]:
        """Yield all files and links in order, and the bytes between that are neither.

        Raises:
            EOFError: the last archive is cut off.
            OSError, tarfile.TarError: the file cannot be read, or decompressed.
        """
        return entries_of(self._stream, self._is_compressed)

    def read(self, member: Member) -> bytes | None:
        """Contents of a file, or of the file that a link names; None if the archive lacks it.

        Raises:
            AudioError: it is larger than the limit ("too_large").
            tarfile.ReadError: the archive ends within it.
        """
        info: tarfile.TarInfo | None = member.info
        for _ in range(MAX_LINKS):
            if info is None or info.isfile():
                break
            info = self._target(info)
        if info is None or not info.isfile():
            return None
        if info.size > self._max_bytes:
            raise too_large(printable(info.name), info.size, self._max_bytes)
        if info.issparse():
            return tarfile.ExFileObject(SimpleNamespace(fileobj=self._contents), info).read()  # type: ignore[arg-type]
        self._contents.seek(info.offset_data)
        data = self._contents.read(info.size)
        if len(data) < info.size:
            raise tarfile.ReadError("unexpected end of data")
        return data

    def _target(self, link: tarfile.TarInfo) -> tarfile.TarInfo | None:
        """Header of the member that a link names: the last one before the link, else the first one behind it."""
        if self._targets is None:
            self._targets = self._find_targets()
        found = self._targets.get(target_name(link), [])
        before = [info for info in found if info.offset < link.offset]
        return before[-1] if before else next((info for info in found if info.offset > link.offset), None)

    def _find_targets(self) -> dict[str, list[tarfile.TarInfo]]:
        """Headers of all members that links name; only these are held in memory."""
        if self._is_compressed:
            self._contents = _decompressed(self._stream)
        stream = self._contents
        position = stream.tell()
        wanted = {target_name(member.info) for member in _readable(stream) if not member.info.isfile()}
        found: dict[str, list[tarfile.TarInfo]] = {}
        for member in _readable(stream):
            name = posixpath.normpath(member.info.name)
            if name in wanted:
                found.setdefault(name, []).append(member.info)
        stream.seek(position)
        return found


def _readable(stream: IO[bytes]) -> Iterator[Member]:
    """Members up to damage, which the first reader comes to as well."""
    try:
        yield from (entry for entry in entries_of(stream, is_compressed=False) if isinstance(entry, Member))
    except (EOFError, tarfile.TarError):
        return


def _decompressed(stream: IO[bytes]) -> IO[bytes]:
    """Decompressed copy on disk, since each jump back would decompress all from the start again."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # deleted when it is closed
    position = stream.tell()
    stream.seek(0)
    with contextlib.suppress(EOFError):  # cut off; the first reader comes to it as well
        shutil.copyfileobj(stream, copy, COPY_BYTES)
    stream.seek(position)
    return copy


def target_name(link: tarfile.TarInfo) -> str:
    """Name of the member that a link names: hard links from the top, symbolic ones from their folder."""
    if link.issym():
        return posixpath.normpath(posixpath.join(posixpath.dirname(link.name), link.linkname))
    return posixpath.normpath(link.linkname)
