"""Phases of a computation: which share of the time each of its steps takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic_ns
from typing import TypeVar

Item = TypeVar("Item")

# Steps of a worker: opening, decoding and resampling; computing codes, or waiting for them; writing and syncing files.
READING, ENCODING, WRITING = "reading", "encoding", "writing"
OTHER = "other"

# About when the process began, since this is among the first modules that the command imports.
PROCESS_STARTED = monotonic_ns()


class PhaseClock:
    """Sums the time of one thread by phase. At every moment one phase runs, so that the sums add up to the whole.

    A change of phase takes a quarter of a microsecond. Other threads must not change it.

    Args:
        phase: the first phase.
        since: `monotonic_ns` when it began; None for now.

    Attributes:
        on_switch: called with each phase that begins; None for no call.
    """

    def __init__(self, phase: str = OTHER, since: int | None = None) -> None:
        self.on_switch: Callable[[str], None] | None = None
        self._sums: Counter[str] = Counter()
        self._phase = phase
        self._since = self._started = monotonic_ns() if since is None else since

    def switch(self, phase: str) -> str:
        """Begin `phase`, and return the one that ends."""
        now, before = monotonic_ns(), self._phase
        self._sums[before] += now - self._since
        self._since, self._phase = now, phase
        if self.on_switch is not None and phase != before:
            self.on_switch(phase)
        return before

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Count the context as `phase`; the phase before continues after it."""
        before = self.switch(phase)
        try:
            yield
        finally:
            self.switch(before)

    def steps(self, phase: str, items: Iterable[Item]) -> Generator[Item, None, None]:
        """Yield `items`, and count the time that each takes to arrive as `phase`, unless other phases run within."""
        iterator = iter(items)
        try:
            while True:
                before = self.switch(phase)
                try:
                    item = next(iterator)
                except StopIteration:
                    return
                finally:
                    self.switch(before)
                yield item
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each phase so far, in the order in which phases began."""
        self.switch(self._phase)
        return {phase: nanoseconds / 1e9 for phase, nanoseconds in self._sums.items()}

    @property
    def phase(self) -> str:
        """The phase that runs now."""
        return self._phase

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was started."""
        return (monotonic_ns() - self._started) / 1e9


def sum_phases(several: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Add seconds by phase."""
    sums: dict[str, float] = {}
    for seconds in several:
        for phase, value in seconds.items():
            sums[phase] = sums.get(phase, 0.0) + value
    return sums
