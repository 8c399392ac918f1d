"""Short identities of the contents of files, which tell a copy from a changed file of the same size.

A plan stores them, so that a job goes on after its corpus was copied or restored, which changes the files' times. Of a
large file only blocks are read: a change between two of them, which keeps the size, is not seen.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

BLOCKS = 16
BLOCK_BYTES = 1 << 12
# Disks and stores answer several requests at a time.
THREADS = 16
FILES_AT_A_TIME = 1 << 12
# Names that clients of stores give to a hash or version of the content, which stays the same for a copy.
IDENTITIES = ("md5Hash", "content_md5", "crc32c", "ETag", "etag", "checksum")


def content_of_file(path: Path, size: int | None) -> int | None:
    """Identity of a local file of `size` bytes, by blocks from its beginning to its end; None if it cannot be read."""
    if not size:
        return None  # opening a pipe would wait for ever
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    digest = hashlib.blake2b(size.to_bytes(8), digest_size=8)
    try:
        for start, length in _blocks(size):
            digest.update(os.pread(descriptor, length, start))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return int.from_bytes(digest.digest(), signed=True)


def contents_of_files(files: Iterable[tuple[Path, int | None]]) -> Iterator[int | None]:
    """Identity of each local file, given with its size, in their order."""
    files = iter(files)
    with ThreadPoolExecutor(THREADS) as pool:
        while some := list(islice(files, FILES_AT_A_TIME)):
            yield from pool.map(lambda file: content_of_file(*file), some)


def content_in_store(info: Mapping[str, Any]) -> int | None:
    """Identity of a file in a store, by the hash or version that the store knows; None if it knows none."""
    found = next((info[name] for name in IDENTITIES if info.get(name)), None)
    if found is None:
        return None
    return int.from_bytes(hashlib.blake2b(str(found).encode(), digest_size=8).digest(), signed=True)


def _blocks(size: int) -> list[tuple[int, int]]:
    """Start and length of blocks: the first, the last and others at equal distances; all of a small file."""
    if size <= BLOCKS * BLOCK_BYTES:
        return [(0, size)]
    return [((size - BLOCK_BYTES) * number // (BLOCKS - 1), BLOCK_BYTES) for number in range(BLOCKS)]
