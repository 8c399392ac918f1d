"""Files about the runs of a job, for `status`: which machines work or worked on it, and how fast.

Each run of a job, or of a share of it, has one small file that its driver replaces every few seconds. No output
depends on these files, and they are neither hashed nor verified.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError

from codectok.config import StrictModel
from codectok.errors import InputError, shortened
from codectok.names import JOB_FOLDER
from codectok.storage import Storage

RUNS = f"{JOB_FOLDER}/runs"
Seconds = Annotated[float, Field(allow_inf_nan=False)]


class _Part(StrictModel):
    # A later version may have added fields.
    model_config = ConfigDict(extra="ignore")


class RunningUnit(_Part):
    """A unit at work: the machine of its worker, and when it began (seconds since 1970)."""

    unit: int
    node: str
    since: Seconds


class NodeWork(_Part):
    """Units that the workers of a machine have made, and the audio in them."""

    units: int = 0
    input_seconds: Seconds = 0.0

    def __add__(self, other: NodeWork) -> NodeWork:
        return NodeWork(units=self.units + other.units, input_seconds=self.input_seconds + other.input_seconds)


class Note(_Part):
    """A message to the user, and when it was shown (seconds since 1970)."""

    time: Seconds
    message: str


class EarlierRuns(_Part):
    """Totals of earlier runs of the same name, which wrote the same file."""

    runs: int = 0
    seconds: Seconds = 0.0
    nodes: dict[str, NodeWork] = Field(default_factory=dict)


class RunFile(_Part):
    """Contents of `runs/NAME.json`. Times are in seconds since 1970.

    Attributes:
        name: of the run: "whole", or its share of the job.
        process: process and host of its driver.
        host: of its driver.
        version: of codectok.
        engine: "ray" or "local".
        workers: workers that were asked for.
        started, updated: beginning of the run, and the last sign of it.
        ended: its end; None while it runs, and after it was killed.
        ending: "finished", "interrupted", or the error that ended it.
        phase: phase of the command, such as "workers" or "units".
        units_to_do, units_made, units_failed: units of this run.
        estimated_to_do, estimated_made: seconds of their audio by file sizes, and one second for each unit.
        units_began: start of its first unit.
        input_seconds: audio that it has read.
        running: units at work.
        nodes: finished units by machine.
        notes: the last messages.
        earlier: runs before this one.
    """

    name: str
    process: str
    host: str
    version: str
    engine: str
    workers: int
    started: Seconds
    updated: Seconds
    ended: Seconds | None = None
    ending: str = ""
    phase: str = ""
    units_to_do: int
    units_made: int = 0
    units_failed: int = 0
    estimated_to_do: Seconds
    estimated_made: Seconds = 0.0
    units_began: Seconds | None = None
    input_seconds: Seconds = 0.0
    running: tuple[RunningUnit, ...] = ()
    nodes: dict[str, NodeWork] = Field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    earlier: EarlierRuns = EarlierRuns()

    @property
    def units_left(self) -> int:
        """Units that the run has neither made nor given up."""
        return max(0, self.units_to_do - self.units_made - self.units_failed)

    @property
    def speed(self) -> float | None:
        """Seconds of audio that it reads in a second; None before its first unit is finished."""
        seconds = self._seconds_of_units
        return self.input_seconds / seconds if self.units_made and seconds else None

    @property
    def seconds_left(self) -> float | None:
        """Estimated time to the end of its units at its speed so far; None before its first unit is finished."""
        if not self.units_left:
            return 0.0
        seconds = self._seconds_of_units
        if not self.estimated_made or not seconds:
            return None
        return max(0.0, self.estimated_to_do - self.estimated_made) * seconds / self.estimated_made

    @property
    def _seconds_of_units(self) -> float:
        return 0.0 if self.units_began is None else max(0.0, self.updated - self.units_began)

    def as_earlier(self) -> EarlierRuns:
        """Add this run to the runs before it."""
        return EarlierRuns(
            runs=self.earlier.runs + 1,
            seconds=self.earlier.seconds + self.updated - self.started,
            nodes=sum_nodes([self.earlier.nodes, self.nodes]),
        )


def sum_nodes(several: Iterable[dict[str, NodeWork]]) -> dict[str, NodeWork]:
    """Add the work of machines by their names."""
    total: dict[str, NodeWork] = {}
    for nodes in several:
        for node, work in nodes.items():
            total[node] = total.get(node, NodeWork()) + work
    return dict(sorted(total.items()))


def write_run_file(storage: Storage, file: RunFile) -> None:
    """Write or replace the file of a run."""
    storage.write(_path(file.name), file.model_dump_json(indent=1).encode() + b"\n")


def earlier_runs(storage: Storage, name: str) -> EarlierRuns:
    """Totals of the runs called `name` so far; none if their file is missing or damaged, since no output needs it."""
    try:
        return RunFile.model_validate_json(storage.read(_path(name))).as_earlier()
    except (FileNotFoundError, ValidationError, RecursionError):
        return EarlierRuns()


def read_run_files(storage: Storage) -> list[RunFile]:
    """Read the files of all runs, sorted by name; empty for outputs of versions that wrote none.

    Raises:
        InputError: a file is damaged.
    """
    files = []
    for path in storage.sizes(RUNS):
        if not path.endswith(".json") or path.rpartition("/")[2].startswith("."):
            continue  # half-written
        try:
            files.append(RunFile.model_validate_json(storage.read(path)))
        except FileNotFoundError:
            continue
        except (ValidationError, RecursionError) as error:
            raise InputError(
                f"{storage.url}/{path} is damaged ({shortened(error)}); delete it, since no output depends on it."
            ) from None
    return files


def _path(name: str) -> str:
    return f"{RUNS}/{name}.json"
