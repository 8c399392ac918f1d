"""Finds audio among files whose names say something else, by their first bytes."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

from codectok.audio.signatures import HEAD_BYTES, signature_of
from codectok.errors import AudioError
from codectok.sources.stores.faults import patiently
from codectok.sources.stores.web import is_web, read_start
from codectok.storage import is_url, open_file_system

from .found import FoundFile

# Disks and stores answer several requests at a time.
THREADS = 16
FILES_AT_A_TIME = 64


def with_audio(root: str, files: Iterable[FoundFile]) -> Iterator[tuple[FoundFile, bool]]:
    """Yield each file with True if it begins as an audio or video file; only the first bytes are read."""
    if is_url(root):
        for batch in _batches(files, THREADS * FILES_AT_A_TIME):
            yield from zip(batch, _probe_remote(root, batch), strict=True)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        for batch in _batches(files, THREADS * FILES_AT_A_TIME):
            yield from zip(batch, _probe_local(root, batch, pool), strict=True)


def _batches(files: Iterable[FoundFile], size: int) -> Iterator[Sequence[FoundFile]]:
    files = iter(files)
    while batch := list(itertools.islice(files, size)):
        yield batch


def _probe_local(root: str, files: Sequence[FoundFile], pool: Executor) -> Iterator[bool]:
    shares = _batches(files, FILES_AT_A_TIME)
    return itertools.chain.from_iterable(pool.map(functools.partial(_probe_share, root), shares))


def _probe_share(root: str, files: Sequence[FoundFile]) -> list[bool]:
    # Without a size they are not regular files, and opening a pipe would wait for ever.
    return [bool(file.size) and _begins_as_audio(f"{root}/{file.path}") for file in files]


def _begins_as_audio(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return signature_of(os.read(descriptor, HEAD_BYTES)) is not None
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _probe_remote(root: str, files: Sequence[FoundFile]) -> Iterator[bool]:
    if is_web(root):
        with ThreadPoolExecutor(THREADS) as pool:
            yield from pool.map(_begins_as_audio_at, [f"{root.rstrip('/')}/{file.path}" for file in files])
        return
    store, folder = open_file_system(root)
    paths = [f"{folder.rstrip('/')}/{file.path}" for file in files]
    heads = store.cat_ranges(paths, [0] * len(paths), [HEAD_BYTES] * len(paths), on_error="return")
    yield from (isinstance(head, bytes) and signature_of(head) is not None for head in heads)


def _begins_as_audio_at(url: str) -> bool:
    try:
        return signature_of(patiently(lambda: read_start(url, HEAD_BYTES), url)) is not None
    except AudioError:
        return False
