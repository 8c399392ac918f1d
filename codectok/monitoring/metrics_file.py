"""Metrics as a text file, for the textfile collector of Prometheus' node exporter."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable

from codectok.errors import InputError, described
from codectok.storage import LocalStorage

from .series import MetricValues

SUFFIX = ".prom"
WRITE_SECONDS = 2.0


class MetricsFile:
    """Replaces a file of metrics now and then.

    The file has one name for all runs with the same `tags` on this machine: the collector refuses two files with the
    same series.

    Args:
        folder: of the file.
        stem: beginning of its name.
        tags: texts that tell the series of this file from the series of others.
        values: metrics to write.
        on_failure: called with a sentence the first time the file cannot be written.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: LocalStorage,
        stem: str,
        tags: tuple[str, ...],
        values: MetricValues,
        on_failure: Callable[[str], None],
    ) -> None:
        digest = hashlib.sha256("\0".join(tags).encode(errors="surrogateescape")).hexdigest()[:8]
        self._folder, self._values, self._on_failure = folder, values, on_failure
        self._name = f"{stem}-{digest}{SUFFIX}"
        self._lock = threading.Lock()
        self._last, self._told = 0.0, False
        try:
            self._replace()
        except OSError as error:
            raise InputError(
                f"Metrics cannot be written to {folder.url}: {described(error)}; choose another --log-dir."
            ) from None

    def write(self, now: bool = False) -> None:
        """Replace the file; unless `now`, only if the last time is long ago."""
        with self._lock:
            if not now and time.monotonic() - self._last < WRITE_SECONDS:
                return
            try:
                self._replace()
            except OSError as error:
                if not self._told:
                    self._told = True
                    self._on_failure(
                        f"Metrics in {self._folder.url} cannot be written: {described(error)}; the run continues, and"
                        " they are old until they can be."
                    )

    def _replace(self) -> None:
        self._last = time.monotonic()
        self._folder.write(self._name, self._values.exposition().encode())
