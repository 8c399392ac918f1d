"""Status of jobs and training runs as tables, as one line, and as facts for programs."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from codectok.formatting import counted, format_duration

from .console import table_of_facts, table_of_rows

if TYPE_CHECKING:
    from rich.table import Table

    from codectok.pipelines.engine.status import JobStatus, RunStatus
    from codectok.train.report.status import TrainStatus

SHOWN_UNITS = 8
# A driver writes its file every few seconds, unless its process or the storage hangs.
SILENT_SECONDS = 60.0
SHOWN_NOTES = 5
REMARKS = {
    "planning": "the sources are being listed",
    "stopped": "run the same command again to resume",
    "failed units": "run the same command again to try them once more",
}


class StatusView(ABC):
    """Status in the forms in which it is printed."""

    is_over: bool

    @abstractmethod
    def tables(self) -> list[Table]:
        """Make the tables."""

    @abstractmethod
    def line(self) -> str:
        """Format the status as one line."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return the status as values of JSON."""


class JobView(StatusView):
    """Shows a job."""

    def __init__(self, status: JobStatus) -> None:
        self._status = status
        self.is_over = status.is_over

    def tables(self) -> list[Table]:
        """Facts, runs, machines, units at work, failures and messages; tables without a row are left out."""
        status, now = self._status, time.time()
        shown = status.running[:SHOWN_UNITS]
        more = len(status.running) - len(shown)
        notes = sorted((note for run in status.runs for note in run.file.notes), key=lambda note: note.time)
        found: list[tuple[str, Sequence[str], Sequence[Sequence[object]]]] = [
            ("runs", ("run", "state", "driver", "units", "speed", "time left"), [_run_row(run) for run in status.runs]),
            ("machines", ("machine", "units made", "audio", "units at work"), list(_node_rows(status))),
            (
                "units at work" + (f": the first {len(shown)} of {len(status.running)}" if more else ""),
                ("unit", "machine", "for"),
                [(unit.unit, unit.node, format_duration(max(0.0, now - unit.since))) for unit in shown],
            ),
            ("failed units", ("unit", "error"), [(failure.unit, failure.error) for failure in status.failures]),
            ("last messages", ("ago", "message"), [(_ago(now - n.time), n.message) for n in notes[-SHOWN_NOTES:]]),
        ]
        facts = table_of_facts(f"codectok status {status.output}", dict(_job_rows(status)))
        return [facts, *(table_of_rows(title, header, rows) for title, header, rows in found if rows)]

    def line(self) -> str:
        """State, units, speed and time left."""
        status = self._status
        parts = [_state(status), _units(status)]
        if status.input_seconds:
            parts.append(f"{_audio(status)} read")
        if status.speed is not None:
            parts.append(f"{status.speed:,.0f}x real time")
        if status.seconds_left is not None:
            parts.append(f"about {format_duration(status.seconds_left)} left")
        return f"{status.verb or 'job'}: {', '.join(parts)}"

    def facts(self) -> dict[str, Any]:
        """All facts."""
        return _job_facts(self._status)


class TrainView(StatusView):
    """Shows training runs."""

    def __init__(self, runs: Sequence[TrainStatus]) -> None:
        self._runs = runs
        self.is_over = all(run.finished for run in runs)

    def tables(self) -> list[Table]:
        """Make one table for each run."""
        return [table_of_facts(f"codectok status {run.output}", dict(_train_rows(run))) for run in self._runs]

    def line(self) -> str:
        """Step and losses of the last run that has begun."""
        run = next((run for run in reversed(self._runs) if run.step is not None), self._runs[0])
        return f"train {run.output}: {', '.join(f'{name} {value}' for name, value in _train_rows(run))}"

    def facts(self) -> dict[str, Any]:
        """All facts."""
        return {"verb": "train", "runs": [_train_facts(run) for run in self._runs]}


def _job_rows(status: JobStatus) -> Iterator[tuple[str, object]]:
    if status.verb is not None:
        yield "job", status.verb
    remark = REMARKS.get(status.state)
    if status.state == "stopped" and status.planned and status.done == status.planned:
        remark = "run the same command again to describe the output"
    yield "state", _state(status) + (f"; {remark}" if remark else "")
    if status.first_pass is not None and (status.state != "complete" or status.first_pass.state != "complete"):
        yield "first pass", f"{_state(status.first_pass)}, {_units(status.first_pass)}"
    if status.verb is None:
        return
    yield "units", _units(status)
    if status.input_seconds:
        yield "audio", f"{_audio(status)} read"
    if status.speed:
        yield "speed", f"{status.speed:,.0f}x real time: {format_duration(3600 * status.speed)} of audio an hour"
    if status.living:
        left = status.seconds_left
        yield "time left", "not known before a unit is finished" if left is None else f"about {format_duration(left)}"
    if status.runs:
        count = sum(run.file.earlier.runs + 1 for run in status.runs)
        yield "time so far", f"{format_duration(status.run_seconds)} in {counted(count, 'run')}"


def _state(status: JobStatus) -> str:
    signs = [run.seconds_since_sign for run in status.runs if run.alive]
    if not signs or min(signs) <= SILENT_SECONDS:
        return status.state
    return f"{status.state}, without a sign of it for {format_duration(min(signs))}"


def _units(status: JobStatus) -> str:
    counts = [f"{status.done:,} of {status.planned:,} done"]
    if status.running:
        counts.append(f"{len(status.running):,} running")
    if status.failed:
        counts.append(f"{status.failed:,} failed")
    if status.living and status.waiting - status.failed > 0:
        counts.append(f"{status.waiting - status.failed:,} left to other runs")
    return ", ".join(counts)


def _audio(status: JobStatus) -> str:
    return ("about " if status.is_estimate else "") + format_duration(status.input_seconds)


def _run_row(run: RunStatus) -> tuple[object, ...]:
    file = run.file
    state = "killed" if file.ended is None else f"{file.ending}, {_ago(run.seconds_since_sign)} ago"
    if run.alive:
        state = f"running ({file.phase}, {counted(file.workers, 'worker')})"
    left = file.seconds_left if run.alive else None
    return (
        file.name,
        state,
        file.process,
        f"{file.units_made:,} of {file.units_to_do:,}" + (f", {file.units_failed:,} failed" * bool(file.units_failed)),
        "" if file.speed is None else f"{file.speed:,.0f}x",
        "" if left is None else format_duration(left),
    )


def _node_rows(status: JobStatus) -> Iterator[tuple[object, ...]]:
    nodes = status.nodes
    for node in sorted({*nodes, *(unit.node for unit in status.running)}):
        work = nodes.get(node)
        at_work = sum(unit.node == node for unit in status.running)
        made, seconds = (work.units, work.input_seconds) if work else (0, 0.0)
        yield node, f"{made:,}", format_duration(seconds), f"{at_work:,}"


def _ago(seconds: float) -> str:
    return format_duration(max(0.0, seconds))


def _job_facts(status: JobStatus) -> dict[str, Any]:
    return {
        "output": status.output,
        "verb": status.verb,
        "state": status.state,
        "units": {
            "planned": status.planned,
            "done": status.done,
            "running": len(status.running),
            "failed": status.failed,
        },
        "input_seconds": status.input_seconds,
        "input_seconds_is_estimate": status.is_estimate,
        "times_real_time": status.speed,
        "seconds_left": status.seconds_left,
        "run_seconds": status.run_seconds,
        "nodes": {node: work.model_dump() for node, work in status.nodes.items()},
        "failures": [{"unit": failure.unit, "error": failure.error} for failure in status.failures],
        "runs": [
            {"alive": run.alive, "seconds_since_sign": run.seconds_since_sign, **run.file.model_dump(mode="json")}
            for run in status.runs
        ],
        "first_pass": None if status.first_pass is None else _job_facts(status.first_pass),
    }


def _train_state(run: TrainStatus) -> str:
    if run.running:
        return "running"
    if run.finished:
        return "finished"
    if run.running is None:
        return "unfinished; the same command resumes it if it has stopped"
    return "stopped before its end; the same command resumes it"


def _train_rows(run: TrainStatus) -> Iterator[tuple[str, object]]:
    yield "state", _train_state(run)
    if run.step is None:
        yield "step", "none was logged yet"
    else:
        yield "step", f"{run.step:,}" + ("" if run.steps is None else f" of {run.steps:,}")
    for label, value in run.losses.items():
        yield label, f"{value:.4g}"
    if run.steps_per_second is not None:
        yield "speed", f"{run.steps_per_second:.3g} steps/s"
    if not run.finished and run.seconds_left is not None:
        yield "time left", f"about {format_duration(run.seconds_left)}"
    if run.seconds_since_sign is not None:
        yield "last entry", f"{format_duration(run.seconds_since_sign)} ago"
    yield "checkpoints", ", ".join(f"{step:,}" for step in run.checkpoints) or "none"


def _train_facts(run: TrainStatus) -> dict[str, Any]:
    return {
        "output": str(run.output),
        "finished": run.finished,
        "running": run.running,
        "step": run.step,
        "steps": run.steps,
        # JSON has no infinities.
        "losses": {label: value if math.isfinite(value) else None for label, value in run.losses.items()},
        "steps_per_second": run.steps_per_second,
        "seconds_left": run.seconds_left,
        "seconds_since_sign": run.seconds_since_sign,
        "checkpoints": list(run.checkpoints),
    }
