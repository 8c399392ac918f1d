"""Members of tar archives: of joined ones, of damaged ones as far as possible, and links to other members."""

from __future__ import annotations

import contextlib
import posixpath
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO, cast

BLOCK = tarfile.BLOCKSIZE
CHECKSUM = slice(148, 156)
MAX_LINKS = 16  # that lead to one another
COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file in a tar.

    Attributes:
        archive: number of the archive, if several are joined.
        info: its header; for a link, the header of the link.
    """

    archive: int
    info: tarfile.TarInfo


@dataclass(frozen=True)
class Unreadable:
    """Bytes between members that are not a part of one.

    Attributes:
        offset, end: range of bytes.
        is_damage: True if the archive has not ended before.
    """

    offset: int
    end: int
    is_damage: bool


class JoinedTars:
    """Reads a tar, and all that follow it in the same file.

    Args:
        file: open for reading and seeking, compressed or not.

    Raises:
        tarfile.TarError: it is not a tar.
    """

    def __init__(self, file: BinaryIO) -> None:
        # tarfile recognizes the compression; its reader serves for the contents of members.
        self._tar = tarfile.open(fileobj=file, mode="r:*")  # noqa: SIM115  # closed with the file
        self._stream = cast(IO[bytes], self._tar.fileobj)
        self._is_compressed = self._tar.fileobj is not file
        self._targets: dict[str, list[tarfile.TarInfo]] | None = None

    def entries(self) -> Iterator[Member | Unreadable]:
        """Yield all files and links in order, and the bytes between that are neither.

        Raises:
            EOFError: the last archive is cut off.
            OSError, tarfile.TarError: the file cannot be read, or decompressed.
        """
        return _entries(self._stream)

    def read(self, member: Member) -> bytes | None:
        """Contents of a file, or of the file that a link names; None if the archive lacks it."""
        info: tarfile.TarInfo | None = member.info
        for _ in range(MAX_LINKS):
            if info is None or info.isfile():
                break
            info = self._target(info)
        if info is None or not info.isfile():
            return None
        opened = self._tar.extractfile(info)
        assert opened is not None, "it is a file"
        return opened.read()

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
            self._tar.fileobj = _decompressed(self._stream)
        stream = cast(IO[bytes], self._tar.fileobj)
        position = stream.tell()
        wanted = {target_name(member.info) for member in _readable(stream) if not member.info.isfile()}
        found: dict[str, list[tarfile.TarInfo]] = {}
        for member in _readable(stream):
            name = posixpath.normpath(member.info.name)
            if name in wanted:
                found.setdefault(name, []).append(member.info)
        stream.seek(position)
        return found


def _entries(stream: IO[bytes]) -> Iterator[Member | Unreadable]:
    archive, start = 0, 0
    while True:
        stream.seek(start)
        tar = tarfile.TarFile(fileobj=stream)
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every member
            if info.isfile() or info.islnk() or info.issym():
                yield Member(archive, info)
        offset: int = tar.offset
        stream.seek(offset)
        has_ended = stream.read(BLOCK) == bytes(BLOCK)
        following, unknown, end = _next_header(stream, offset)
        if unknown is not None:
            yield Unreadable(unknown, end, not has_ended)
        if following is None:
            if not has_ended and unknown is None:
                raise EOFError("it has no end mark and may be cut off")
            return
        start = following
        archive += has_ended


def _next_header(stream: IO[bytes], offset: int) -> tuple[int | None, int | None, int]:
    """Offsets of the next header from `offset` on, of the first block before it that is not zero, and of its end."""
    unknown = None
    stream.seek(offset)
    while block := stream.read(BLOCK):
        if any(block):
            if _is_header(block):
                return offset, unknown, offset
            if unknown is None:
                unknown = offset
        offset += len(block)
    return None, unknown, offset


def _readable(stream: IO[bytes]) -> Iterator[Member]:
    """Members up to damage, which the first reader comes to as well."""
    try:
        yield from (entry for entry in _entries(stream) if isinstance(entry, Member))
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


def _is_header(block: bytes) -> bool:
    if len(block) < BLOCK or not block[CHECKSUM].strip(b" \0").isdigit():
        return False
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
