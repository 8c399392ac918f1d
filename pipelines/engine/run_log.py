"""Keeps the file about a run up to date while the run works (see `output.run_files`)."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import codectok
from codectok.monitoring.events import (
    BusyMeasured,
    MachineAsked,
    MetricsServed,
    Noted,
    UnitFailed,
    UnitFinished,
    UnitsPlanned,
    WorkersPlanned,
)
from codectok.monitoring.monitor import RunMonitor
from codectok.names import writable
from codectok.pipelines.engine.output.folder import MadeUnit
from codectok.pipelines.engine.output.records import Counts, UnitRecord
from codectok.pipelines.engine.output.run_files import (
    EarlierRuns,
    NodeWork,
    Note,
    RunFile,
    earlier_runs,
    write_run_file,
)
from codectok.pipelines.engine.planning.plan import Plan
from codectok.storage import LocalStorage, Storage

from .faults import FailedUnit, describe
from .lock import Lock, process_name, run_name
from .options import RunOptions
from .progress import Machine, ProgressCallback
from .ray_metrics import serve_metrics
from .timing import RunTimer

# Seconds between two writes of the file, on a disk and in an object store.
DISK_SECONDS, STORE_SECONDS = 3.0, 10.0
KEPT_NOTES = 5


class RunLog:
    """Passes the progress of a run on to its callback and its events, and writes the file about the run.

    Args:
        storage: storage of the output.
        options: of the run.
        progress: callback of the caller.
        timer: knows the units at work.
        events: receives events.
    """

    def __init__(
        self,
        storage: Storage,
        options: RunOptions,
        progress: ProgressCallback,
        timer: RunTimer,
        events: RunMonitor,
    ) -> None:
        self._storage, self._options, self._progress, self._timer = storage, options, progress, timer
        self._events = events
        events.totals = self.totals
        self.complete = False
        self._seconds = DISK_SECONDS if isinstance(storage, LocalStorage) else STORE_SECONDS
        self._started = time.time()
        self._workers = 1
        self._plan: Plan | None = None
        self._to_do = 0
        self._estimated_to_do = 0.0
        self._made = self._failed = 0
        self._estimated = 0.0
        self._total = Counts()
        self._nodes: dict[str, NodeWork] = {}
        self._notes: deque[Note] = deque(maxlen=KEPT_NOTES)
        self._earlier = EarlierRuns()

    @contextmanager
    def recorded(self, plan: Plan, units: Sequence[int], lock: Lock) -> Iterator[None]:
        """Write the file during the context, for a run that makes `units` and holds `lock`.

        A run without units has nothing to tell, and leaves the file of the one before it.
        """
        if not units:
            yield
            return
        self._plan, self._to_do = plan, len(units)
        self._estimated_to_do = weight_of(plan, units)
        self._earlier = earlier_runs(self._storage, run_name(self._options.part))
        self._write()
        ended = threading.Event()
        thread = threading.Thread(target=self._keep, args=(ended, lock), daemon=True)
        thread.start()
        ending: BaseException | None = None
        try:
            yield
        except BaseException as error:
            ending = error
            raise
        finally:
            ended.set()
            thread.join()
            self._write_end(ending, lock)

    def made(self, unit: MadeUnit) -> None:
        """Called when a unit was committed."""
        record = unit.record
        total = record.total
        self._made += 1
        if self._plan is not None:
            self._estimated += weight_of(self._plan, [record.unit])
        self._total = Counts.sum([self._total, total])
        work = NodeWork(units=1, input_seconds=total.input_seconds)
        self._nodes[unit.node] = self._nodes.get(unit.node, NodeWork()) + work
        self._events.emit(
            UnitFinished(
                unit=record.unit,
                node=unit.node,
                seconds=round(sum(unit.phases.values()), 3),
                audio_seconds=total.input_seconds,
                rows=total.rows,
                codes=total.codes,
                bytes=sum(file.bytes for file in record.files),
                rejects=total.rejects,
                phases={phase: round(seconds, 3) for phase, seconds in unit.phases.items()},
            )
        )

    def gave_up(self, unit: FailedUnit) -> None:
        """Called when a unit has failed."""
        self._failed += 1
        self._events.emit(UnitFailed(unit.unit, unit.message, unit.lasting))

    def totals(self) -> dict[str, Any]:
        """Return the totals of this run for its last event."""
        return {
            "units_finished": self._made,
            "units_failed": self._failed,
            "audio_seconds": self._total.input_seconds,
            "rows": self._total.rows,
            "rejects": self._total.rejects,
            "complete": self.complete,
        }

    def planned(self, plan: Plan, done: Sequence[UnitRecord], to_do: Sequence[int]) -> None:
        """Pass it on."""
        estimated = float(plan.units.estimated_seconds[list(to_do)].sum())
        self._events.emit(UnitsPlanned(len(plan.units), len(done), len(to_do), estimated, plan.header.options))
        self._progress.planned(plan, done, to_do)

    def asked(self, machines: Sequence[Machine]) -> None:
        """Pass it on."""
        for machine in machines:
            self._events.emit(MachineAsked(machine.name, machine.cpus, machine.gpus, dict(machine.programs)))
        self._progress.asked(machines)

    def started(self, workers: int, threads: int, gpus: int) -> None:
        """Keep the number of workers."""
        self._workers = workers
        self._events.emit(WorkersPlanned(workers, threads, gpus))
        addresses = serve_metrics(self._events.monitor.values, self.note)
        if addresses:
            self._events.emit(MetricsServed(addresses))
        self._progress.started(workers, threads, gpus)

    def finished(self, record: UnitRecord) -> None:
        """Pass it on."""
        self._progress.finished(record)

    def busy(self, share: float) -> None:
        """Pass it on."""
        self._events.emit(BusyMeasured(share))
        self._progress.busy(share)

    def note(self, message: str) -> None:
        """Keep the last messages."""
        self._events.emit(Noted(message))
        self._notes.append(Note(time=time.time(), message=writable(message)))
        self._progress.note(message)

    def _keep(self, ended: threading.Event, lock: Lock) -> None:
        while not ended.wait(self._seconds):
            # A disk or store that fails here fails where the output is written, which reports it; clients of stores
            # differ in their errors. A run that has lost its lock must not write.
            with suppress(Exception):
                lock.check()
                self._write()
            with suppress(Exception):
                self._events.refresh()

    def _write_end(self, error: BaseException | None, lock: Lock) -> None:
        if error is None:
            self._write("finished")
            return
        ending = describe(error) if isinstance(error, Exception) else "interrupted"
        with suppress(Exception):  # the error that ended the run is the one to report
            lock.check()
            self._write(ending)

    def _write(self, ending: str = "") -> None:
        now = time.time()
        running = tuple(self._timer.running.values())
        file = RunFile(
            name=run_name(self._options.part),
            process=process_name(),
            host=socket.gethostname(),
            version=codectok.__version__,
            engine=self._options.engine,
            workers=self._workers,
            started=self._started,
            updated=now,
            ended=now if ending else None,
            ending=ending,
            phase=self._timer.clock.phase,
            units_to_do=self._to_do,
            units_made=self._made,
            units_failed=self._failed,
            estimated_to_do=self._estimated_to_do,
            estimated_made=self._estimated,
            units_began=self._timer.units_began,
            input_seconds=self._total.input_seconds,
            running=() if ending else running,
            nodes=dict(self._nodes),
            notes=tuple(self._notes),
            earlier=self._earlier,
        )
        write_run_file(self._storage, file)


def weight_of(plan: Plan, units: Sequence[int]) -> float:
    """Sum of the weights of units."""
    return float(plan.units.weights(units).sum())
