"""Names, kinds and tags of all metrics, and the values of a run."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

PREFIX = "codectok_"
# Tags of every metric of jobs and of training runs. Not `job`, which Prometheus sets to the name of the scraped target.
RUN_TAGS = ("verb", "output", "part")
UNIT_SECONDS = (1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 21600.0)

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Series:
    """A metric.

    Attributes:
        name: without prefix, and without the suffix `_total` of counters.
        kind: "counter", "gauge" or "histogram".
        help: one sentence.
        tags: in addition to `RUN_TAGS`.
        bounds: upper bounds of the buckets of a histogram.
    """

    name: str
    kind: Kind
    help: str
    tags: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """Name of the family in the exposition format."""
        return f"{PREFIX}{self.name}_total" if self.kind == "counter" else f"{PREFIX}{self.name}"

    @property
    def tag_keys(self) -> tuple[str, ...]:
        """All tags, in their order."""
        return RUN_TAGS + self.tags


AUDIO_SECONDS = Series("audio_seconds", "counter", "Audio read by finished units, in seconds.", ("node",))
UNITS_FINISHED = Series("units_finished", "counter", "Units made by this run.", ("node",))
ROWS = Series("rows", "counter", "Rows of output.", ("node",))
OUTPUT_BYTES = Series("output_bytes", "counter", "Bytes of finished units.", ("node",))
UNIT_TIME = Series(
    "unit_seconds", "histogram", "Time of a worker for a finished unit, in seconds.", ("node",), UNIT_SECONDS
)
REJECTS = Series("rejects", "counter", "Rejected inputs.", ("reason",))
UNITS_FAILED = Series("units_failed", "counter", "Units that failed their last attempt.")
UNITS_RETRIED = Series("units_retried", "counter", "Attempts at units that failed and were followed by another.")
WORKERS_DIED = Series("workers_died", "counter", "Workers that died, hung or could not start.")
UNITS_LEFT = Series("units_left", "gauge", "Units that this run has neither made nor given up.")
UNITS_RUNNING = Series("units_running", "gauge", "Units at work.")
UNITS_WAITING = Series("units_waiting", "gauge", "Units in the queue.")
WORKERS = Series("workers", "gauge", "Workers that are ready.")
BUSY = Series("busy_ratio", "gauge", "Share of the time in which the GPUs, or else the servers, were busy so far.")
SPEED = Series("speed_ratio", "gauge", "Seconds of audio read in a second, or hours in an hour, since the first unit.")
RUNNING = Series("run_active", "gauge", "1 while the run works, 0 after its end.")
UPDATED = Series("update_timestamp_seconds", "gauge", "Last sign of the run, in seconds since 1970.")
NOTES = Series("notes", "counter", "Messages and warnings for the user.")

STEP = Series("train_step", "gauge", "Last step of a training run whose metrics were logged.")
TRAIN_METRIC = Series("train_metric", "gauge", "Metrics of a training run by their names.", ("metric",))
CHECKPOINT_STEP = Series("train_checkpoint_step", "gauge", "Step of the last checkpoint.")

JOB_SERIES = (
    AUDIO_SECONDS, UNITS_FINISHED, ROWS, OUTPUT_BYTES, UNIT_TIME, REJECTS, UNITS_FAILED, UNITS_RETRIED, WORKERS_DIED,
    UNITS_LEFT, UNITS_RUNNING, UNITS_WAITING, WORKERS, BUSY, SPEED,
)  # fmt: skip
RUN_SERIES = (RUNNING, UPDATED, NOTES)
TRAIN_SERIES = (STEP, TRAIN_METRIC, CHECKPOINT_STEP)
ALL_SERIES = JOB_SERIES + RUN_SERIES + TRAIN_SERIES


class MetricsBackend(Protocol):
    """A library that serves metrics, such as Ray's. `tags` has a value for each of `Series.tag_keys`."""

    def add(self, series: Series, amount: float, tags: Mapping[str, str]) -> None:
        """Increase a counter by `amount`, which is greater than 0."""

    def set(self, series: Series, value: float, tags: Mapping[str, str]) -> None:
        """Set a gauge."""

    def observe(self, series: Series, value: float, tags: Mapping[str, str]) -> None:
        """Add a value to a histogram."""


@dataclass
class Histogram:
    """Number of values up to each bound, above the last one at the end, and their sum."""

    counts: list[int]
    sum: float = 0.0


@dataclass
class MetricValues:
    """Values of the metrics of a run by series and tags; passes changes on to a backend once there is one.

    Attributes:
        numbers: counters and gauges.
        histograms: histograms.
    """

    numbers: dict[tuple[Series, tuple[str, ...]], float] = field(default_factory=dict)
    histograms: dict[tuple[Series, tuple[str, ...]], Histogram] = field(default_factory=dict)
    _backend: MetricsBackend | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def attach(self, backend: MetricsBackend) -> None:
        """Tell `backend` the counters and gauges so far, and all later changes."""
        with self._lock:
            self._backend = backend
            for (series, values), number in self.numbers.items():
                tags = dict(zip(series.tag_keys, values, strict=True))
                if series.kind == "gauge":
                    backend.set(series, number, tags)
                elif number > 0:
                    backend.add(series, number, tags)

    def add(self, series: Series, amount: float, tags: Mapping[str, str]) -> None:
        """Increase a counter; an `amount` of 0 makes it known."""
        with self._lock:
            key = self._key(series, tags)
            self.numbers[key] = self.numbers.get(key, 0.0) + amount
            if self._backend is not None and amount > 0:
                self._backend.add(series, amount, tags)

    def set(self, series: Series, value: float, tags: Mapping[str, str]) -> None:
        """Set a gauge."""
        with self._lock:
            self.numbers[self._key(series, tags)] = value
            if self._backend is not None:
                self._backend.set(series, value, tags)

    def observe(self, series: Series, value: float, tags: Mapping[str, str]) -> None:
        """Add a value to a histogram."""
        with self._lock:
            found = self.histograms.setdefault(self._key(series, tags), Histogram([0] * (len(series.bounds) + 1)))
            found.counts[sum(value > bound for bound in series.bounds)] += 1
            found.sum += value
            if self._backend is not None:
                self._backend.observe(series, value, tags)

    def exposition(self) -> str:
        """Return all values in Prometheus' text format."""
        with self._lock:
            lines = []
            for series in ALL_SERIES:
                samples = [*self._samples(series)]
                if samples:
                    lines += [f"# HELP {series.full_name} {series.help}", f"# TYPE {series.full_name} {series.kind}"]
                    lines += samples
            return "".join(f"{line}\n" for line in lines)

    def _samples(self, series: Series) -> list[str]:
        name, keys = series.full_name, series.tag_keys
        found = [
            f"{name}{_labels(keys, values)} {_number(number)}"
            for (each, values), number in self.numbers.items()
            if each == series
        ]
        for (each, values), histogram in self.histograms.items():
            if each != series:
                continue
            total = 0
            for bound, count in zip((*series.bounds, float("inf")), histogram.counts, strict=True):
                total += count
                found.append(f"{name}_bucket{_labels((*keys, 'le'), (*values, _number(bound)))} {total}")
            found += [
                f"{name}_sum{_labels(keys, values)} {_number(histogram.sum)}",
                f"{name}_count{_labels(keys, values)} {total}",
            ]
        return found

    @staticmethod
    def _key(series: Series, tags: Mapping[str, str]) -> tuple[Series, tuple[str, ...]]:
        assert tags.keys() == set(series.tag_keys), f"{series.name} has the tags {series.tag_keys}"
        return series, tuple(tags[key] for key in series.tag_keys)


def _labels(keys: tuple[str, ...], values: tuple[str, ...]) -> str:
    pairs = (f'{key}="{_escaped(value)}"' for key, value in zip(keys, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    special = {float("inf"): "+Inf", float("-inf"): "-Inf"}
    return special.get(value) or ("NaN" if value != value else repr(float(value)))
