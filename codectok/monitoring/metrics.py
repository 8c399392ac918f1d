"""Computes metrics from events."""

from __future__ import annotations

import time

from .events import (
    BusyMeasured,
    CheckpointWritten,
    Event,
    Noted,
    RunEnded,
    StepLogged,
    UnitFailed,
    UnitFinished,
    UnitRetried,
    UnitsPlanned,
    UnitStarted,
    Validated,
    WorkerDied,
    WorkerEnded,
    WorkerStarted,
)
from .series import (
    AUDIO_SECONDS,
    BUSY,
    CHECKPOINT_STEP,
    NOTES,
    OUTPUT_BYTES,
    REJECTS,
    ROWS,
    RUNNING,
    SPEED,
    STEP,
    TRAIN_METRIC,
    UNIT_TIME,
    UNITS_FAILED,
    UNITS_FINISHED,
    UNITS_LEFT,
    UNITS_RETRIED,
    UNITS_RUNNING,
    UNITS_WAITING,
    UPDATED,
    WORKERS,
    WORKERS_DIED,
    MetricValues,
    Series,
)


class RunMetrics:
    """Metrics of a run, or of its first pass.

    Args:
        values: receives them.
        verb, output, part: tags of all of them (see `series.RUN_TAGS`).
    """

    def __init__(self, values: MetricValues, verb: str, output: str, part: str) -> None:
        self._values = values
        self._tags = {"verb": verb, "output": output, "part": part}
        self._left = 0
        self._running: set[int] = set()
        self._workers: set[int] = set()
        self._audio_seconds = 0.0
        self._first_unit: float | None = None
        self._set(RUNNING, 1)
        self.refresh()

    def emit(self, event: Event) -> None:
        """Update the metrics."""
        match event:
            case UnitsPlanned():
                self._plan(event)
            case UnitStarted():
                self._running.add(event.unit)
                self._first_unit = self._first_unit or time.time()
            case UnitRetried():
                self._running.discard(event.unit)
                self._add(UNITS_RETRIED, 1)
            case UnitFinished():
                self._finish(event)
            case UnitFailed():
                self._left -= 1
                self._running.discard(event.unit)
                self._add(UNITS_FAILED, 1)
            case WorkerStarted():
                self._workers.add(event.worker)
            case WorkerEnded():
                self._workers.discard(event.worker)
            case WorkerDied():
                self._add(WORKERS_DIED, 1)
            case BusyMeasured():
                self._set(BUSY, event.share)
            case Noted():
                self._add(NOTES, 1)
            case StepLogged() | Validated():
                self._set(STEP, event.step)
                for name, value in event.metrics.items():
                    self._set(TRAIN_METRIC, value, metric=name)
            case CheckpointWritten():
                self._set(CHECKPOINT_STEP, event.step)
            case RunEnded():
                self.end()
        if isinstance(event, UnitsPlanned | UnitStarted | UnitRetried | UnitFinished | UnitFailed):
            self._set(UNITS_LEFT, self._left)
            self._set(UNITS_RUNNING, len(self._running))
            self._set(UNITS_WAITING, max(0, self._left - len(self._running)))
        if isinstance(event, UnitsPlanned | WorkerStarted | WorkerEnded):
            self._set(WORKERS, len(self._workers))
        self.refresh()

    def end(self) -> None:
        """Called at the end of the run, or of the first pass."""
        if self._running:
            self._running.clear()
            self._set(UNITS_RUNNING, 0)
        self._set(RUNNING, 0)

    def refresh(self) -> None:
        """Update the metrics that change with time."""
        now = time.time()
        self._set(UPDATED, now)
        if self._first_unit is not None and now > self._first_unit and self._audio_seconds:
            self._set(SPEED, self._audio_seconds / (now - self._first_unit))

    def _plan(self, event: UnitsPlanned) -> None:
        self._left = event.to_do
        for series in (UNITS_FAILED, UNITS_RETRIED, WORKERS_DIED):
            self._add(series, 0)

    def _finish(self, event: UnitFinished) -> None:
        self._left -= 1
        self._running.discard(event.unit)
        self._audio_seconds += event.audio_seconds
        node = event.node
        self._add(UNITS_FINISHED, 1, node=node)
        self._add(AUDIO_SECONDS, event.audio_seconds, node=node)
        self._add(ROWS, event.rows, node=node)
        self._add(OUTPUT_BYTES, event.bytes, node=node)
        self._values.observe(UNIT_TIME, event.seconds, self._tags | {"node": node})
        for reason, count in event.rejects.items():
            self._add(REJECTS, count, reason=reason)

    def _add(self, series: Series, amount: float, **tags: str) -> None:
        self._values.add(series, amount, self._tags | tags)

    def _set(self, series: Series, value: float, **tags: str) -> None:
        self._values.set(series, value, self._tags | tags)
