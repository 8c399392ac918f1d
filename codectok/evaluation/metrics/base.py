"""The interface of metrics: they compare a reconstruction with its original, or raise why they cannot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from codectok.audio.resample import resample

T = TypeVar("T")


class UndefinedMetricError(Exception):
    """A metric is undefined for a clip; the message is the reason, in a few words."""


class Signal:
    """A mono clip, which keeps resampled copies and other values that metrics compute of it.

    Attributes:
        samples: float32 [n].
        sample_rate: in Hz.
        source_rate: rate of the recording, if it was lower before a conversion; at most `sample_rate`.
    """

    def __init__(self, samples: np.ndarray, sample_rate: int, source_rate: int | None = None) -> None:
        self.samples, self.sample_rate = samples, sample_rate
        self.source_rate = min(source_rate or sample_rate, sample_rate)
        self._kept: dict[Any, Any] = {}

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.samples) / self.sample_rate

    def at(self, sample_rate: int) -> np.ndarray:
        """Return the samples at another rate, float32 [n]."""
        return self.keep(sample_rate, lambda: resample(self.samples, self.sample_rate, sample_rate))

    def keep(self, key: Any, compute: Callable[[], T]) -> T:
        """Return a value of this clip, computed once for each `key`; an `UndefinedMetricError` is kept, too."""
        if key not in self._kept:
            try:
                self._kept[key] = compute()
            except UndefinedMetricError as error:
                self._kept[key] = error
        found = self._kept[key]
        if isinstance(found, UndefinedMetricError):
            raise found
        return found  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Pair:
    """An original and its reconstruction, aligned and of equal length and rate.

    Attributes:
        original, reconstruction: the two clips.
        text: words that are spoken in the original; None if unknown.
        language: code of its language, such as "en"; None if unknown.
    """

    original: Signal
    reconstruction: Signal
    text: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class Quantity:
    """A value that a metric measures.

    Attributes:
        name: column of the results.
        better: direction of better values; "neither" for values that describe a clip.
        description: unit, range and meaning in a few words.
    """

    name: str
    better: Literal["higher", "lower", "neither"]
    description: str


class Metric(ABC):
    """Measures one or more quantities of a pair.

    Attributes:
        quantities: values that `measure` returns, in order.
        packages: distributions that must be installed, by the names of the modules that they hold.
    """

    quantities: ClassVar[tuple[Quantity, ...]]
    packages: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return all quantities by name; finite values that depend on the pair alone.

        Raises:
            UndefinedMetricError: the metric is undefined for this pair.
        """
