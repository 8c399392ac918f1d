"""Files of web servers, in bounded blocks: nothing that a server states or sends decides how much memory is used."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from fsspec.asyn import sync

from codectok.errors import AudioError
from codectok.sources.decompression import Decompressed
from codectok.sources.kinds import ARCHIVE_SUFFIXES, TAR_ENDINGS
from codectok.storage import open_file_system

from .faults import DiskError

BLOCK = 1 << 20
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
# A server that sends less than this, after a while, keeps its reader waiting for ever.
PATIENCE_SECONDS, SLOWEST_BYTES_PER_SECOND = 60.0, 4096
PARTIAL, UNSATISFIABLE, FIRST_ERROR = 206, 416, 400
PACKED = frozenset(["gzip", "x-gzip"])
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
COMPRESSED_NAMES = (*ARCHIVE_SUFFIXES, *TAR_ENDINGS[1:])


@dataclass(frozen=True)
class WebFile:
    """A file of a web server, as its answer to a request for the first byte describes it.

    Attributes:
        url: address.
        size: bytes that the server states; None if unknown.
        has_ranges: True if parts of the file can be asked for.
    """

    url: str
    size: int | None
    has_ranges: bool


def is_web(url: str) -> bool:
    """True for the URL of a web server."""
    return url.lower().startswith(("http://", "https://"))


def look_at(url: str) -> WebFile:
    """Ask for the first byte of a file."""

    async def ask(files: Any) -> WebFile:
        async with _answer(files, url, {"Range": "bytes=0-0"}, accepted=(UNSATISFIABLE,)) as answer:
            found = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            packed = answer.headers.get("Content-Encoding", "identity").lower() != "identity"
            if answer.status == UNSATISFIABLE:
                return WebFile(url, 0, has_ranges=False)
            if answer.status == PARTIAL and found is not None and found[3] != "*" and not packed:
                return WebFile(url, int(found[3]), has_ranges=True)
            stated = None if packed or answer.status == PARTIAL else answer.content_length
            return WebFile(url, stated, has_ranges=False)

    found: WebFile = _run(url, ask)
    return found


def read_range(url: str, start: int, end: int) -> bytes:
    """Read the bytes from `start` up to `end`, exclusive; raises an `OSError` for another answer."""

    async def read(files: Any) -> bytes:
        async with _answer(files, url, {"Range": f"bytes={start}-{end - 1}"}) as answer:
            found = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if answer.status != PARTIAL or found is None or found[1] is None or int(found[1]) != start:
                raise OSError(f"the server has not answered with the bytes from {start} on")
            data = bytearray()
            while len(data) < end - start and (chunk := await answer.content.read(min(BLOCK, end - start - len(data)))):
                data += chunk
            if len(data) < end - start:
                raise OSError(f"the server has sent {len(data)} of {end - start} bytes")
            return bytes(data)

    found: bytes = _run(url, read)
    return found


def read_start(url: str, size: int) -> bytes:
    """Read up to `size` bytes from the beginning of a file, however the server answers."""

    async def read(files: Any) -> bytes:
        async with _answer(files, url, {"Range": f"bytes=0-{size - 1}"}) as answer:
            data = b""
            while len(data) < size and (chunk := await answer.content.read(size - len(data))):
                data += chunk
            return data

    found: bytes = _run(url, read)
    return found


def download(url: str, max_bytes: int) -> BinaryIO:
    """Return a temporary file, at its beginning, with the contents of `url`.

    Raises:
        AudioError: "too_large" for more than `max_bytes`, "unreachable" for a server that hardly sends anything.
        DiskError: the temporary file cannot be written.
    """
    try:
        file = tempfile.TemporaryFile(prefix="codectok-")  # noqa: SIM115  # returned
    except OSError as error:
        raise DiskError(error) from None

    async def copy(files: Any) -> str:
        async with _answer(files, url, {}) as answer:
            if (answer.content_length or 0) > max_bytes:
                raise too_large(url, answer.content_length, max_bytes)
            received, started = 0, time.monotonic()
            while chunk := await answer.content.read(BLOCK):
                received += len(chunk)
                if received > max_bytes:
                    raise too_large(url, None, max_bytes)
                if (time.monotonic() - started - PATIENCE_SECONDS) * SLOWEST_BYTES_PER_SECOND > received:
                    raise AudioError(f"{url} cannot be fetched: the server sends too slowly.", "unreachable")
                _write(file, chunk)
            return str(answer.headers.get("Content-Encoding", "identity")).lower()

    try:
        encoding = _run(url, copy)
        file.seek(0)
        if encoding == "identity" or url.lower().endswith(COMPRESSED_NAMES):
            return file
        return _unpacked(file, encoding, url, max_bytes)
    except BaseException:
        file.close()
        raise


def too_large(where: str, size: int | None, max_bytes: int) -> AudioError:
    """Error for an input of `size` bytes, or of more than are read."""
    has = "more" if size is None else f"{size:,} bytes, more"
    return AudioError(f"{where} has {has} than {max_bytes:,} bytes (see --max-file-bytes).", "too_large")


def _unpacked(file: BinaryIO, encoding: str, url: str, max_bytes: int) -> BinaryIO:
    """Unpack contents that the server has packed although it was asked not to."""
    if encoding not in PACKED:
        raise AudioError(f"{url} cannot be fetched: the server sends it packed by {encoding}.", "unreadable")
    plain = tempfile.TemporaryFile(prefix="codectok-")  # noqa: SIM115  # returned
    with Decompressed(file, url) as packed:
        while chunk := packed.read(BLOCK):
            if plain.tell() + len(chunk) > max_bytes:
                raise too_large(url, None, max_bytes)
            _write(plain, chunk)
    plain.seek(0)
    return plain


def _write(file: Any, chunk: bytes) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise DiskError(error) from None


@asynccontextmanager
async def _answer(
    files: Any, url: str, headers: Mapping[str, str], accepted: tuple[int, ...] = ()
) -> AsyncIterator[Any]:
    import aiohttp

    options = dict(files.kwargs)
    sent = {"Accept-Encoding": "identity", **options.pop("headers", {}), **headers}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
    options = {"timeout": timeout, **options, "headers": sent, "auto_decompress": False}
    session = await files.set_session()
    async with session.get(files.encode_url(url), **options) as answer:
        if answer.status >= FIRST_ERROR and answer.status not in accepted:
            answer.raise_for_status()
        yield answer


def _run(url: str, coroutine: Any) -> Any:
    files = open_file_system(url)[0]
    return sync(files.loop, coroutine, files)
