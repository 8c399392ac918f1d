"""Measures a run of a job on the driver: its start, its workers by phase, and its speed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from time import monotonic, time
from typing import Annotated

from pydantic import Field

from codectok.config import StrictModel
from codectok.monitoring.events import (
    EventSink,
    NullEvents,
    PhaseStarted,
    UnitRetried,
    UnitStarted,
    WorkerDied,
    WorkerEnded,
    WorkerStarted,
)
from codectok.phases import PhaseClock, sum_phases
from codectok.pipelines.engine.output.run_files import RunningUnit

# Phases of the command, in their order.
IMPORTS, CODEC, PLAN, FIRST_PASS, RAY, WORKERS, UNITS, END = (
    *("imports", "codec", "plan", "first pass", "ray", "workers", "units", "end"),
)
BEFORE_UNITS = (IMPORTS, CODEC, PLAN, FIRST_PASS, RAY, WORKERS)
# A worker waits for its next unit, or for the last units of the others.
WAITING = "waiting"

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class RunTiming(StrictModel):
    """Times of one run, in seconds.

    Attributes:
        wall: of the whole command.
        audio: audio that was read.
        units: number of units made.
        first_unit_started, first_unit_finished: from the start of the command; None without units.
        command: the command by phase, adds up to `wall`.
        workers: number of workers that were started.
        worker_phases: all workers by phase, adds up to the sum of their lives.
        server_phases: start of all servers by phase; empty without servers.
        server_busy: share of the time in which servers had work; None without servers.
        gpu_busy: share of the time in which the GPUs computed batches, by their own clocks; None if not measured.
        units_run_twice: slow units that ran a second time on another machine.
    """

    wall: Seconds
    audio: Seconds
    units: int
    first_unit_started: Seconds | None = None
    first_unit_finished: Seconds | None = None
    command: dict[str, Seconds]
    workers: int
    worker_phases: dict[str, Seconds]
    server_phases: dict[str, Seconds] = Field(default_factory=dict)
    server_busy: Share | None = None
    gpu_busy: Share | None = None
    units_run_twice: int = 0

    @property
    def times_real_time(self) -> float:
        """Hours of audio in an hour of the command."""
        return self.audio / self.wall if self.wall else 0.0

    @property
    def before_units(self) -> dict[str, float]:
        """The command by phase, up to the start of the first unit."""
        return {phase: self.command[phase] for phase in BEFORE_UNITS if phase in self.command}


class RunTimer:
    """Collects the times of a run on the driver, and emits the events of its workers and units.

    Attributes:
        clock: phases of the command; its main thread changes them.
        server_busy, gpu_busy, units_run_twice: see `RunTiming`.
        running: units at work by number.
        units_began: when the first unit began, in seconds since 1970; None before.

    Args:
        clock: of a command that began earlier; None for one that begins now.
        events: receives events.
    """

    def __init__(self, clock: PhaseClock | None = None, events: EventSink | None = None) -> None:
        self._events = events or NullEvents()
        if clock is None:
            self._events.emit(PhaseStarted(PLAN))
        self.clock = clock or PhaseClock(PLAN)
        self.clock.on_switch = lambda phase: self._events.emit(PhaseStarted(phase))
        self._numbers: dict[Hashable, int] = {}
        self._worker_nodes: dict[Hashable, str] = {}
        self.server_busy: float | None = None
        self.gpu_busy: float | None = None
        self.units_run_twice = 0
        self.running: dict[int, RunningUnit] = {}
        self.units_began: float | None = None
        self._server_phases: dict[str, float] = {}
        self._worker_phases: dict[str, float] = {}
        self._begun: dict[Hashable, float] = {}
        self._workers = self._units = 0
        self._lives = self._audio = 0.0
        self._first_started: float | None = None
        self._first_finished: float | None = None

    def begin_worker(self, worker: Hashable) -> None:
        """Called when a worker, with any key, is asked for."""
        self._begun[worker] = monotonic()
        self._workers += 1
        self._numbers[worker] = self._workers

    def worker_ready(self, worker: Hashable, phases: Mapping[str, float], node: str = "") -> None:
        """Called with the phases of the start of a worker; the rest of the time since then is `IMPORTS`."""
        life = monotonic() - self._begun[worker]
        self._worker_nodes[worker] = node
        self._events.emit(WorkerStarted(self._numbers[worker], node, round(life, 3)))
        imports = {IMPORTS: max(0.0, life - sum(phases.values()))}
        self._worker_phases = sum_phases([self._worker_phases, imports, phases])

    def end_worker(self, worker: Hashable, reason: str = "") -> None:
        """Called when a worker ends; with a reason if it died, hung or could not start."""
        life = monotonic() - self._begun.pop(worker)
        self._lives += life
        number, node = self._numbers.pop(worker), self._worker_nodes.pop(worker, "")
        if reason:
            self._events.emit(WorkerDied(number, node, reason))
        self._events.emit(WorkerEnded(number, node, round(life, 3)))

    def servers_ready(self, servers: Sequence[Mapping[str, float]], seconds: float) -> None:
        """Called with the phases of the start of each server, `seconds` after they were asked for."""
        imports = sum(max(0.0, seconds - sum(phases.values())) for phases in servers)
        self._server_phases = sum_phases([{IMPORTS: imports}, *servers])

    def begin_unit(self, unit: int, node: str, attempt: int = 1) -> None:
        """Called when an attempt at a unit begins on the machine `node`."""
        now = time()
        self.running[unit] = RunningUnit(unit=unit, node=node, since=now)
        self._events.emit(UnitStarted(unit, node, attempt))
        if self.units_began is None:
            self.units_began = now
        if self._first_started is None:
            self.clock.switch(UNITS)
            self._first_started = self.clock.elapsed

    def retry_unit(self, unit: int, reason: str) -> None:
        """Called when an attempt at a unit has failed and another one will follow."""
        found = self.running.pop(unit, None)
        self._events.emit(UnitRetried(unit, found.node if found else "", reason))

    def end_unit(self, unit: int) -> None:
        """Called when an attempt at a unit has ended, with or without success."""
        self.running.pop(unit, None)

    def finish_unit(self, phases: Mapping[str, float], audio: float) -> None:
        """Called with the phases of a finished unit, and the seconds of audio that it read."""
        if self._first_finished is None:
            self._first_finished = self.clock.elapsed
        self._units += 1
        self._audio += audio
        self._worker_phases = sum_phases([self._worker_phases, phases])

    def timing(self) -> RunTiming | None:
        """Times so far; None if no unit was made."""
        if not self._units:
            return None
        command = self.clock.seconds()
        lives = self._lives + sum(monotonic() - begun for begun in self._begun.values())
        waiting = {WAITING: max(0.0, lives - sum(self._worker_phases.values()))}
        return RunTiming(
            wall=sum(command.values()),
            audio=self._audio,
            units=self._units,
            first_unit_started=self._first_started,
            first_unit_finished=self._first_finished,
            command=command,
            workers=self._workers,
            worker_phases=self._worker_phases | waiting,
            server_phases=self._server_phases,
            server_busy=self.server_busy,
            gpu_busy=self.gpu_busy,
            units_run_twice=self.units_run_twice,
        )
