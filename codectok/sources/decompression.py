"""Unpacks gzip, bzip2 and xz in blocks, up to a bound on what they expand to."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

from codectok.errors import AudioError
from codectok.seekable import SeekableReader

INPUT_BYTES = 1 << 18
# A text or tar that expands further than both is made to fill memory and disks.
FREE_EXPANSION, MAX_EXPANSION = 1 << 30, 200
# Files can ask for dictionaries of 4 GB.
XZ_MEMORY = 1 << 29
MAGIC = {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7zXZ\x00", "lzma": b"\x5d\x00\x00"}
MAGIC_BYTES = 6
SEEK_BLOCK = 1 << 20


class DamagedStreamError(OSError):
    """Compressed data that is damaged."""


class _Gzip:
    """One stream of gzip, with the interface of the decompressors of bz2 and lzma."""

    def __init__(self) -> None:
        self._inner, self._waiting = zlib.decompressobj(wbits=31), b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found = self._inner.decompress(self._waiting + data, max_length)
        self._waiting = self._inner.unconsumed_tail
        return found

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._waiting

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data


DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "gzip": _Gzip,
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY),
    "lzma": lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY),
}


def compression_of(start: bytes) -> str | None:
    """Name of the compression of a file that begins with `start`; None without one."""
    return next((name for name, magic in MAGIC.items() if start.startswith(magic)), None)


class Decompressed(SeekableReader):
    """The contents of a compressed file; seeking backwards unpacks it again from its start.

    Reading raises `AudioError` ("too_large") for a file that expands without measure, `DamagedStreamError` for damage,
    and `EOFError` for a file that is cut off.

    Args:
        file: at its beginning; closed with this one.
        where: names the file in messages.
    """

    def __init__(self, file: BinaryIO, where: str) -> None:
        super().__init__(0)  # unknown
        self._file, self._where = file, where
        self._kind = compression_of(file.read(MAGIC_BYTES)) or "gzip"
        self._restart()

    def close(self) -> None:
        """Close the compressed file, too."""
        self._file.close()
        super().close()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; one behind the end is the end."""
        if whence == io.SEEK_END:
            while self._skip(SEEK_BLOCK):
                pass
        target = max(0, offset + (0 if whence == io.SEEK_SET else self._position))
        if target < self._position:
            self._restart()
        while self._position < target and self._skip(min(SEEK_BLOCK, target - self._position)):
            pass
        return self._position

    def _skip(self, size: int) -> int:
        skipped = len(self._read(size))
        self._position += skipped
        return skipped

    def _restart(self) -> None:
        self._file.seek(0)
        self._stream: Any = DECOMPRESSORS[self._kind]()
        self._position = self._taken = 0
        self._has_ended = False

    def _read(self, size: int) -> bytes:
        data = b""
        while size > 0 and not data and not self._has_ended:
            try:
                data = self._step(size)
            except (zlib.error, lzma.LZMAError, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                raise DamagedStreamError(f"its {self._kind} data is damaged ({error})") from None
        if self._position + len(data) > max(FREE_EXPANSION, MAX_EXPANSION * self._taken):
            message = f"{self._where} expands to more than {MAX_EXPANSION} times its size, beyond 1 GiB."
            raise AudioError(message, "too_large")
        return data

    def _step(self, size: int) -> bytes:
        if self._stream.eof:
            self._next_stream()
            return b""
        needs_input = self._stream.needs_input
        data = self._file.read(INPUT_BYTES) if needs_input else b""
        self._taken += len(data)
        found: bytes = self._stream.decompress(data, size)
        if needs_input and not (data or found or self._stream.eof):
            raise EOFError("it ends within its compressed data")
        return found

    def _next_stream(self) -> None:
        """Go on to a stream that follows, behind zeros."""
        rest = self._stream.unused_data
        while True:
            rest = rest.lstrip(b"\0")
            if len(rest) >= MAGIC_BYTES or not (more := self._file.read(INPUT_BYTES)):
                break
            self._taken += len(more)
            rest += more
        if compression_of(rest) != self._kind:
            if rest and self._kind == "gzip":
                raise DamagedStreamError("its gzip data is followed by other data")
            self._has_ended = True
            return
        self._stream = DECOMPRESSORS[self._kind]()
        self._file.seek(-len(rest), io.SEEK_CUR)
        self._taken -= len(rest)
