"""Jobs: options, and a function that turns a unit of sources into output.

The engine calls a job in this order. On the driver: `reads` and `check_sources` while it makes the plan, then the
`first_pass` if there is one. In each worker: `start` once, and the function that it returned for each unit. On the
driver again, once all units are complete: the `reporter`. Values that workers need from the plan, the first pass or the
server arrive as the `WorkerContext` of `start`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from pydantic import JsonValue

from codectok.errors import CodectokError
from codectok.phases import PhaseClock
from codectok.pipelines.engine.output.records import Counts, UnitRecord
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.cutting import CuttingPolicy
from codectok.pipelines.engine.planning.plan import Plan, load_plan
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.kinds import Kind
from codectok.sources.listing.arguments import Argument
from codectok.sources.listing.sources import Listing
from codectok.storage import Storage

from .verifier import OutputVerifier

RunUnit = Callable[[Unit, UnitOutput], None]
"""Writes the files of a unit; their bytes depend on unit and options only. A unit without rows writes no file."""

ServerCall = Callable[..., Callable[[], Any]]
"""Starts a call of a server with the given arguments and returns a function that waits for the answer."""


class Server(ABC):
    """A service that several workers share, in a Ray actor, such as a model on a GPU.

    Attributes:
        gpus: GPUs that one server takes.
    """

    gpus: float = 1.0

    @cached_property
    def clock(self) -> PhaseClock:
        """Clock of the start, in the process of the server; `start` may name phases."""
        return PhaseClock("start")

    @abstractmethod
    def start(self) -> Callable[..., Any]:
        """Load the service, once, and return the function that answers calls; several threads call it at a time."""

    @abstractmethod
    def probe(self, unit: Unit) -> None:
        """Do everything with a unit that can crash a worker, without the server; runs in a child process."""

    def gpu_seconds(self) -> float | None:
        """Time in which the GPU computed answers, by its own clock; None if it is not measured."""
        return None


@dataclass(frozen=True)
class WorkerContext:
    """State of a run that workers need in addition to their units.

    Attributes:
        output: storage of the job's output, which holds its plan.
        roots: folder or URL of each dataset, where the corpus lies now.
        first_pass: output of the job's first pass; None if it has none.
        server: calls the job's server; None if there is none, so that the worker does all the work.
        clock: clock of the worker's start; `Job.start` may name phases.
    """

    output: Storage
    roots: Mapping[str, str] = field(default_factory=dict)
    first_pass: Storage | None = None
    server: ServerCall | None = None
    clock: PhaseClock = field(default_factory=lambda: PhaseClock("start"), compare=False)

    def load_plan(self) -> Plan:
        """Load the plan of the job."""
        plan = load_plan(self.output, self.roots)
        if plan is None:
            raise CodectokError(f"The plan of {self.output.url} is missing; run the same command again.")
        return plan


@dataclass(frozen=True)
class Decision:
    """Decision of a first pass about the units of the other job.

    Attributes:
        file: file in the output of the first pass, from which workers read it.
        data: contents of the file.
        units: units of the other job whose output differs from the one by the decision that is stored there now.
    """

    file: str
    data: bytes
    units: Set[int]


@dataclass(frozen=True)
class FirstPass:
    """A job that runs over all units before another one, for decisions that depend on the whole corpus.

    Attributes:
        job: runs over the units of the other job's plan, in a folder inside its output.
        decide: called on the driver with the output of `job`, before the workers of the other job start.
    """

    job: Job
    decide: Callable[[Storage], Decision]


@dataclass(frozen=True)
class Example:
    """A clip for the report: a caption, and the bytes of its file."""

    caption: str
    mime: str
    data: bytes


class JobReporter:
    """Describes a finished output; each method adds nothing by default."""

    def write_files(self, storage: Storage, records: Sequence[UnitRecord], total: Counts) -> Sequence[str]:
        """Write files that describe the whole output, with its `total` counts, and return their names."""
        return ()

    def examples(self, storage: Storage, records: Sequence[UnitRecord]) -> Sequence[Example]:
        """Choose clips of the output for the report."""
        return ()

    def statistics(self, storage: Storage, total: Counts) -> Mapping[str, JsonValue]:
        """Return statistics of the whole output for `stats.json`, in addition to the times of the run."""
        return {}

    def charts(self, storage: Storage) -> Mapping[str, Mapping[int, int]]:
        """Return histograms by title, in addition to the histograms that units counted."""
        return {}

    def advice(self, datasets: Mapping[str, Counts]) -> Sequence[str]:
        """Return sentences of advice for the user, from the counts of each dataset."""
        return ()


class Job(ABC):
    """A job reads sources unit by unit and writes files. Subclasses define `options`, and `run` or `start`.

    A job is pickled and sent to every worker.

    Attributes:
        verb: word on the command line; the plan stores it.
        row_name: name of a row of output.
        code_name: name of the codes that rows count.
        bytes_version: raise it when output bytes change for the same sources and options.
        kinds: kinds of sources that the job reads.
        cutting: how sources are cut into units.
        threads: threads of a worker. They are the same everywhere, since the bits of a product can depend on them.
        output_bytes_per_second: estimated output per second of audio read, compared with the free space.
        server: service that the workers of a cluster share; None if each works alone.
        first_pass: job that runs over all units first; None if this one needs no other.
        reporter: describes the finished output.
        verifier: checks the output in `verify`; without one only hashes, records and rejects are checked.
    """

    verb: str
    row_name: str = "rows"
    code_name: str = "codes"
    bytes_version: int = 1
    kinds: tuple[Kind, ...] = ("audio", "tar", "parquet", "unknown")
    output_bytes_per_second: float = 0.0
    verifier: ClassVar[type[OutputVerifier] | None] = None

    @abstractmethod
    def options(self) -> Mapping[str, JsonValue]:
        """Return everything except the sources that determines the bytes of the output."""

    def start(self, context: WorkerContext) -> RunUnit:
        """Load a model or other state that all units of a worker share, and return the function that runs a unit."""
        return self.run

    def run(self, unit: Unit, output: UnitOutput) -> None:
        """Write the files of a unit (see `RunUnit`); jobs whose units share loaded state define `start` instead."""
        raise CodectokError(f"The job {type(self).__name__} defines neither `run` nor `start`; define one of them.")

    def check_machine(self) -> None:
        """Raise a `CodectokError` if this machine of a cluster lacks files or packages of the job, or has others.

        Called on each machine before the first unit. On a machine that joins later, `start` refuses the same.
        """

    @property
    def cutting(self) -> CuttingPolicy:
        """An hour of audio for each unit."""
        return CuttingPolicy()

    @property
    def threads(self) -> int:
        """One thread."""
        return 1

    @property
    def server(self) -> Server | None:
        """No server."""
        return None

    @property
    def first_pass(self) -> FirstPass | None:
        """No first pass."""
        return None

    @property
    def reporter(self) -> JobReporter:
        """No additions to the report."""
        return JobReporter()

    def resume_notes(self, storage: Storage, records: Sequence[UnitRecord]) -> Sequence[str]:
        """Return sentences for the user before more units are made, beside the finished ones of `records`."""
        return ()

    def reads(self, argument: Argument, path: str, kind: Kind | None) -> bool:
        """True if the job reads the file at `path`, below the root of `argument`.

        Raises:
            InputError: the file must be neither read nor skipped.
        """
        return kind in self.kinds

    def check_sources(self, listing: Listing) -> None:
        """Raise an `InputError` if these sources cannot be used together; accepts all by default."""
