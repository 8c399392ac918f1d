"""Events of jobs and training runs.

Each event is a line of the event log (`event_log`), and metrics are computed from events (`metrics`). The fields of a
class are the fields of its line; `docs/running/monitoring.md` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True)
class Event:
    """Base of all events.

    Attributes:
        name: value of the field `event` of its line.
    """

    name: ClassVar[str]

    def values(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True)
class RunStarted(Event):
    """A command began; its sources are not listed yet.

    Attributes:
        command: program and arguments.
        version: of codectok.
        host, process: machine and process id.
        output: path or URL of the output.
        part: "whole", or the share of the job that this run makes.
        options: how the job runs, or the configuration of a training run.
    """

    name = "run_started"
    command: Sequence[str]
    version: str
    host: str
    process: int
    output: str
    part: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class PhaseStarted(Event):
    """The command began another phase, such as "plan", "workers" or "units"."""

    name = "phase_started"
    phase: str


@dataclass(frozen=True)
class UnitsPlanned(Event):
    """The plan is stored.

    Attributes:
        units: units of the plan.
        finished: units that earlier runs have finished.
        to_do: units of this run.
        estimated_audio_seconds: audio in the units of this run, by file sizes.
        job_options: options that determine the bytes of the output.
    """

    name = "units_planned"
    units: int
    finished: int
    to_do: int
    estimated_audio_seconds: float
    job_options: Mapping[str, Any]


@dataclass(frozen=True)
class MachineAsked(Event):
    """A machine of a cluster can work on the job; `programs` holds the versions of its programs by name."""

    name = "machine_asked"
    node: str
    cpus: float
    gpus: float
    programs: dict[str, str]


@dataclass(frozen=True)
class WorkersPlanned(Event):
    """The number of workers is known: with `threads` threads each, and the GPUs in use."""

    name = "workers_planned"
    workers: int
    threads: int
    gpus: int


@dataclass(frozen=True)
class WorkerStarted(Event):
    """A worker is ready, `seconds` after it was asked for. `worker` counts workers from 1 on; `node` may be empty."""

    name = "worker_started"
    worker: int
    node: str
    seconds: float


@dataclass(frozen=True)
class WorkerDied(Event):
    """A worker died, hung or could not start, and is replaced."""

    name = "worker_died"
    worker: int
    node: str
    reason: str


@dataclass(frozen=True)
class WorkerEnded(Event):
    """A worker is gone, after `worker_died` or because its work is done."""

    name = "worker_ended"
    worker: int
    node: str
    seconds: float


@dataclass(frozen=True)
class UnitStarted(Event):
    """An attempt at a unit began on the machine `node`; attempts of a run count from 1 on."""

    name = "unit_started"
    unit: int
    node: str
    attempt: int


@dataclass(frozen=True)
class UnitRetried(Event):
    """An attempt at a unit failed, and another one follows."""

    name = "unit_retried"
    unit: int
    node: str
    reason: str


@dataclass(frozen=True)
class UnitFinished(Event):
    """A unit was committed.

    Attributes:
        unit: number of the unit.
        node: machine that made it.
        seconds: time of its worker.
        audio_seconds: audio that was read.
        rows: rows of output.
        codes: codes in the output.
        bytes: size of its files.
        rejects: number of rejected inputs by reason.
        phases: seconds of its worker by phase.
    """

    name = "unit_finished"
    unit: int
    node: str
    seconds: float
    audio_seconds: float
    rows: int
    codes: int
    bytes: int
    rejects: Mapping[str, int] = field(default_factory=dict)
    phases: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class UnitFailed(Event):
    """A unit failed its last attempt. `lasting` is true if another run would fail as well."""

    name = "unit_failed"
    unit: int
    reason: str
    lasting: bool


@dataclass(frozen=True)
class BusyMeasured(Event):
    """Share of the time in which the GPUs, or else the servers, were busy so far."""

    name = "busy_measured"
    share: float


@dataclass(frozen=True)
class MetricsServed(Event):
    """Ray serves metrics at these addresses, one for each machine."""

    name = "metrics_served"
    addresses: Sequence[str]


@dataclass(frozen=True)
class Noted(Event):
    """A message or warning for the user."""

    name = "note"
    message: str


@dataclass(frozen=True)
class StepLogged(Event):
    """Training metrics, averaged over the steps since the last ones."""

    name = "step_logged"
    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Validated(Event):
    """The codec in training was validated."""

    name = "validated"
    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class CheckpointWritten(Event):
    """A checkpoint was written to the folder `path`."""

    name = "checkpoint_written"
    step: int
    path: str


@dataclass(frozen=True)
class EventsLost(Event):
    """The log could not be written for a while: `count` events before this one are missing."""

    name = "events_lost"
    count: int
    reason: str


@dataclass(frozen=True)
class RunEnded(Event):
    """The run ended.

    Attributes:
        ending: "finished", "interrupted" or "failed"; of a training run also "already finished" or "out of time".
        error: sentence of the error that ended the run; empty without one.
        seconds: time of the command.
        totals: of a job: `units_finished`, `units_failed`, `audio_seconds`, `rows`, `rejects` of this run, and
            `complete`, true if no unit of the plan is missing; of a training run: `step`.
    """

    name = "run_ended"
    ending: str
    error: str
    seconds: float
    totals: Mapping[str, Any]


class EventSink(Protocol):
    """Receives events, from any thread."""

    def emit(self, event: Event) -> None:
        """Called with each event."""


class NullEvents:
    """Receives events, and does nothing."""

    def emit(self, event: Event) -> None:
        """Do nothing."""
