"""Headers of the members of tars: of joined ones, and of damaged ones as far as possible.

Sizes in headers are claims. Reading goes on at the next header behind a member that states more than there is, and
behind a header that cannot be read.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from codectok.errors import AudioError

BLOCK = tarfile.BLOCKSIZE
CHECKSUM = slice(148, 156)
# Of one member, with all extended headers: long names and other attributes.
MAX_HEADER_BYTES = 1 << 18
# tarfile searches extended headers with patterns whose time is quadratic in the length of a number.
LONG_NUMBER = re.compile(rb"\d{64}")
LARGEST_OFFSET = 1 << 62
# Behind each false size, compressed data is unpacked again from its start.
MAX_RESTARTS = 8


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


def entries_of(stream: IO[bytes], is_compressed: bool) -> Iterator[Member | Unreadable]:
    """Yield all files and links in order, and the bytes between that are neither.

    Args:
        stream: the contents of a tar, or of several that are joined.
        is_compressed: True if seeking backwards takes long.

    Raises:
        EOFError: the last archive is cut off.
        OSError, tarfile.TarError: the file is not a tar, or cannot be read.
    """
    archive = start = restarts = 0
    while True:
        headers = _Headers(stream, start, None if is_compressed else stream.seek(0, os.SEEK_END))
        try:
            for info in headers.members():
                if info.isfile() or info.islnk() or info.issym():
                    yield Member(archive, info)
        except tarfile.TarError:
            following, damage = headers.resume()
            restarts += 1
            if damage is None and (following is None or (is_compressed and restarts > MAX_RESTARTS)):
                raise  # it is not a tar, or ends within a member
            if damage is not None:
                yield damage
            if following is None:
                return
            start = following
            continue
        stream.seek(headers.offset)
        has_ended = stream.read(BLOCK) == bytes(BLOCK)
        following, unknown, end = next_header(stream, headers.offset)
        if unknown is not None:
            yield Unreadable(unknown, end, not has_ended)
        if following is None:
            if not has_ended and unknown is None:
                raise EOFError("it has no end mark and may be cut off")
            return
        start = following
        archive += has_ended


class _Headers:
    """Reads the headers of an archive, and is the file for it that `tarfile` sees: what it reads at once is bounded.

    Attributes:
        offset: of the header that is read next, or could not be read.

    Args:
        stream: holds the archive.
        start: offset of its first header.
        size: of the stream in bytes; None if unknown.
    """

    def __init__(self, stream: IO[bytes], start: int, size: int | None) -> None:
        self.offset = start
        self._stream, self._size = stream, size
        self._room = MAX_HEADER_BYTES
        self._last: tarfile.TarInfo | None = None
        stream.seek(start)

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Yield the headers of all members; raises `tarfile.TarError` where one cannot be read."""
        tar: tarfile.TarFile | None = None
        while True:
            self._room = MAX_HEADER_BYTES
            try:
                if tar is None:
                    tar = tarfile.TarFile(fileobj=self)  # type: ignore[arg-type]  # it reads, seeks and tells
                info = tar.next()
            except (tarfile.TarError, OSError, MemoryError, EOFError, AudioError):
                raise
            except Exception as error:  # tarfile does not check all fields before it uses them
                raise tarfile.ReadError(f"a header is damaged ({type(error).__name__})") from None
            if info is None:
                self.offset = tar.offset
                return
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every member
            if info.size < 0 or tar.offset <= info.offset:
                raise tarfile.ReadError("a header states a size below zero")
            self._last, self.offset = info, tar.offset
            yield info

    def resume(self) -> tuple[int | None, Unreadable | None]:
        """Return the offset of the header behind an error, None without one, and a damaged header that is skipped."""
        position = self.tell()
        if self._last is not None and not self._reaches(self.offset):
            return next_header(self._stream, self._last.offset_data)[0], None
        self._stream.seek(self.offset)
        if not is_header(self._stream.read(BLOCK)):
            return None, None
        behind = max(self.offset + BLOCK, -(-position // BLOCK) * BLOCK)
        following, _, end = next_header(self._stream, behind)
        return following, Unreadable(self.offset, max(behind, end) if following is None else following, True)

    def _reaches(self, offset: int) -> bool:
        self.seek(offset - 1)
        return bool(self._stream.read(1))

    def read(self, size: int) -> bytes:
        """Read a part of a header, as `tarfile` does; refuse sizes that no header has."""
        if not 0 <= size <= self._room:
            raise tarfile.ReadError(f"a header states a length of {size:,} bytes")
        self._room -= size
        data = self._stream.read(size)
        if size > BLOCK and LONG_NUMBER.search(data):
            raise tarfile.ReadError("a header has a number of too many digits")
        return data

    def seek(self, offset: int) -> int:
        """Move to an offset; one behind the end is the end."""
        return self._stream.seek(min(offset, LARGEST_OFFSET if self._size is None else self._size))

    def tell(self) -> int:
        """Offset in the stream."""
        return self._stream.tell()


def next_header(stream: IO[bytes], offset: int) -> tuple[int | None, int | None, int]:
    """Offsets of the next header from `offset` on, of the first block before it that is not zero, and of its end."""
    unknown = None
    stream.seek(offset)
    while block := stream.read(BLOCK):
        if any(block):
            if is_header(block):
                return offset, unknown, offset
            if unknown is None:
                unknown = offset
        offset += len(block)
    return None, unknown, offset


def is_header(block: bytes) -> bool:
    """True for a block whose checksum shows that it is the header of a member."""
    if len(block) < BLOCK or not block[CHECKSUM].strip(b" \0").isdigit():
        return False
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except (tarfile.HeaderError, ValueError, IndexError):
        return False
    return True
