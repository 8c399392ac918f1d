"""Commits of units: several at a time in an object store, where each takes a few requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from codectok.storage import LocalStorage

from .folder import MadeUnit, OutputFolder

STORE_COMMITS = 32


class Commits:
    """Commits units in threads; the ones of a disk are committed at once."""

    def __init__(self, folder: OutputFolder, pool: ThreadPoolExecutor | None) -> None:
        self._folder, self._pool = folder, pool
        self._running: deque[tuple[Future[None], MadeUnit]] = deque()

    def add(self, made: MadeUnit, attempt: str) -> Iterator[MadeUnit]:
        """Begin to commit a unit that was made in the folder `attempt`; yield units that are committed."""
        if self._pool is None:
            self._folder.commit(made.record, attempt)
            yield made
            return
        self._running.append((self._pool.submit(self._folder.commit, made.record, attempt), made))
        while len(self._running) >= STORE_COMMITS:
            yield self._oldest()

    def committed(self) -> Iterator[MadeUnit]:
        """Yield units that are committed meanwhile."""
        while self._running and self._running[0][0].done():
            yield self._oldest()

    def finish(self) -> Iterator[MadeUnit]:
        """Wait for the other units, and yield them."""
        while self._running:
            yield self._oldest()

    def _oldest(self) -> MadeUnit:
        future, made = self._running.popleft()
        future.result()
        return made


@contextmanager
def open_commits(folder: OutputFolder, one_by_one: bool = False) -> Iterator[Commits]:
    """Commit units during the context, several at a time unless `one_by_one`; at its end no commit is running."""
    if one_by_one or isinstance(folder.storage, LocalStorage):
        yield Commits(folder, None)
        return
    with ThreadPoolExecutor(STORE_COMMITS) as pool:
        yield Commits(folder, pool)
