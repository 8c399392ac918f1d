"""What a job is: one function from a unit of sources to its output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict, Field, JsonValue

from codectok.config import StrictModel
from codectok.sources.arguments import Argument
from codectok.sources.kinds import AUDIO_KINDS, Kind
from codectok.sources.listing import Listing
from codectok.sources.rejects import ERRORS, Reject, RejectsWriter, rejects_name
from codectok.storage import Storage

from .plan import Plan, Unit

TABLE_BATCH_ROWS = 1024


class Tally(StrictModel):
    """Counts of a unit, of a dataset in it, or of a whole job.

    Attributes:
        inputs: clips that were tried: files, spans of files, samples of tars.
        input_seconds: their duration, of those whose duration became known.
        rows: of output.
        seconds: of audio in the output.
        codes: in the output.
        ignored: files that turned out to be no audio.
        rejects, reject_seconds: by reason.
    """

    model_config = ConfigDict(extra="forbid", frozen=False)

    inputs: int = 0
    input_seconds: float = 0.0
    rows: int = 0
    seconds: float = 0.0
    codes: int = 0
    ignored: int = 0
    rejects: dict[str, int] = Field(default_factory=dict)
    reject_seconds: dict[str, float] = Field(default_factory=dict)

    @property
    def errors(self) -> int:
        """Rejects of inputs that something is wrong with."""
        return sum(count for reason, count in self.rejects.items() if reason in ERRORS)

    @classmethod
    def sum(cls, tallies: Iterable[Tally]) -> Tally:
        """Of several, in their order."""
        numbers: Counter[str] = Counter()
        rejects: Counter[str] = Counter()
        seconds: Counter[str] = Counter()
        for tally in tallies:
            numbers.update(tally.model_dump(exclude={"rejects", "reject_seconds"}))
            rejects.update(tally.rejects)
            seconds.update(tally.reject_seconds)
        return cls(**numbers, rejects=dict(sorted(rejects.items())), reject_seconds=dict(sorted(seconds.items())))


class OutputFile(StrictModel):
    """A file of the output; `name` is relative to the output folder."""

    name: str
    bytes: int
    sha256: str


class UnitRecord(StrictModel):
    """A finished unit: what it became, and what is in it, by dataset; `categories` counts the rows that have one.

    `histograms` count values of each quantity by whole steps (`codectok.pipelines.engine.report` names them).
    """

    unit: int
    split: str
    tallies: dict[str, Tally]
    categories: dict[str, int] = Field(default_factory=dict)
    histograms: dict[str, dict[int, int]]
    files: tuple[OutputFile, ...]

    @property
    def total(self) -> Tally:
        """Of all datasets."""
        return Tally.sum(self.tallies.values())


@dataclass(frozen=True)
class Example:
    """A clip for the report: what it is, and the bytes of its file."""

    caption: str
    mime: str
    data: bytes


class UnitOutput:
    """Where a unit's function puts its output, and counts what it did.

    Attributes:
        folder: for files, laid out as in the output folder.
        first_reject: of what has been noted so far.
    """

    def __init__(self, unit: Unit, folder: Path) -> None:
        self.folder = folder
        self._unit = unit
        self._tallies: dict[str, Tally] = {}
        self._rejects = RejectsWriter(folder / rejects_name(unit.number))
        self.first_reject: Reject | None = None
        self._categories: Counter[str] = Counter()
        self._histograms: dict[str, Counter[int]] = {}

    def read(self, dataset: str, seconds: float | None = None, inputs: int = 1) -> None:
        """Count an input or several, and their duration where that is known."""
        tally = self._tally(dataset)
        tally.inputs += inputs
        tally.input_seconds += seconds or 0.0

    def keep(self, dataset: str, seconds: float, codes: int = 0, category: str | None = None) -> None:
        """Count a row of output."""
        if category is not None:
            self._categories[category] += 1
        tally = self._tally(dataset)
        tally.rows += 1
        tally.seconds += seconds
        tally.codes += codes

    def reject(self, reject: Reject) -> None:
        """Note a span of an input that gives no output."""
        tally = self._tally(reject.dataset)
        tally.rejects[reject.reason] = tally.rejects.get(reject.reason, 0) + 1
        seconds = tally.reject_seconds.get(reject.reason, 0.0) + (reject.duration or 0.0)
        tally.reject_seconds[reject.reason] = seconds
        self.first_reject = self.first_reject or reject
        self._rejects.add(reject)

    def ignore(self, dataset: str) -> None:
        """Count a file that is no audio and was not said to be."""
        self._tally(dataset).ignored += 1

    def observe(self, quantity: str, step: int) -> None:
        """Count a value in the histogram of a quantity."""
        self._histograms.setdefault(quantity, Counter())[step] += 1

    @property
    def rows(self) -> int:
        """Rows of output so far."""
        return sum(tally.rows for tally in self._tallies.values())

    def record(self, files: Sequence[OutputFile]) -> UnitRecord:
        """What to remember of the unit."""
        return UnitRecord(
            unit=self._unit.number,
            split=self._unit.split,
            tallies=dict(sorted(self._tallies.items())),
            categories=dict(sorted(self._categories.items())),
            histograms={name: dict(sorted(counts.items())) for name, counts in sorted(self._histograms.items())},
            files=tuple(files),
        )

    def finish_rejects(self) -> None:
        """Have the rejects, if there are any, in a file beside the others."""
        self._rejects.close()

    def _tally(self, dataset: str) -> Tally:
        return self._tallies.setdefault(dataset, Tally())


class Server(ABC):
    """What several workers share, in an actor of its own: a model on a GPU."""

    gpus: float = 1.0

    @abstractmethod
    def set_up(self) -> None:
        """Get ready, once, before the first call."""

    @abstractmethod
    def call(self, *arguments: Any) -> Any:
        """Answer a worker; several calls come at the same time, from threads."""


# Begins a call of the server with some arguments, and gives a function that waits for the answer.
ServerCall = Callable[..., Callable[[], Any]]


class Job(ABC):
    """A job is sent to every worker; `set_up` is called there once, then `run` for each unit.

    Attributes:
        verb: the word on the command line.
        row_name: what it calls a row of output; `code_name` what it counts in them.
        bytes_version: to be raised when the same sources and options give other bytes.
        kinds: sources that it reads.
        whole_files: units of `part_bytes` are neighbouring files, and not a share of the rows of every dataset.
        output_bytes_per_second: of audio read; to compare with the free space.
    """

    verb: ClassVar[str]
    row_name: ClassVar[str]
    code_name: ClassVar[str] = "codes"
    bytes_version: ClassVar[int] = 1
    kinds: ClassVar[tuple[Kind, ...]] = AUDIO_KINDS
    whole_files: ClassVar[bool] = False
    output_bytes_per_second: float = 0.0

    @abstractmethod
    def options(self) -> Mapping[str, JsonValue]:
        """Everything that decides the bytes of the output besides the sources."""

    @property
    def unit_seconds(self) -> float:
        """Estimated audio of a unit."""
        return 3600.0

    @property
    def part_bytes(self) -> float | None:
        """Bytes of the sources of a unit, where they are read row by row; None where units are counted in seconds."""
        return None

    @property
    def in_every_unit(self) -> Sequence[str]:
        """Datasets of which no unit can do without; of sources that are read row by row."""
        return ()

    @property
    def threads(self) -> int:
        """Threads of a worker: the same everywhere, since the bits of a product can depend on them."""
        return 1

    @property
    def validation(self) -> float:
        """Share of the files whose units are marked as validation."""
        return 0.0

    def reads(self, argument: Argument, path: str, kind: Kind | None) -> bool:
        """Whether a file is read that `argument` names, by its path below the root; an `InputError` stops the job."""
        return kind in self.kinds

    def check_sources(self, listing: Listing) -> None:
        """Raise an `InputError` where sources cannot be worked on together; nothing by default."""

    def first_pass(self) -> Job | None:
        """A job that must have gone over all units before this one begins, for what the whole corpus decides."""
        return None

    def use_first_pass(self, output: Storage) -> None:
        """Take in the output of the first pass, in the driver, before this job is sent to its workers."""

    def use_plan(self, plan: Plan) -> None:
        """Take in, in the driver, what units need to know of the others; nothing by default."""

    def server(self) -> Server | None:
        """What the workers of a cluster share; None, the default, where each does all by itself."""
        return None

    def connect(self, call: ServerCall) -> None:
        """Take in, in a worker, how to call the server."""

    def rehearse(self, unit: Unit) -> None:
        """Do all for a unit that can crash a process, but without a server; for jobs that have one."""

    def set_up(self) -> None:
        """Load what all units of a worker share, such as a model; nothing by default."""

    @abstractmethod
    def run(self, unit: Unit, output: UnitOutput) -> None:
        """Write the unit's files; their bytes depend on nothing but unit and options. No rows, no file."""

    def examples(self, storage: Storage, records: Sequence[UnitRecord]) -> Sequence[Example]:
        """Clips of the output for the report; none by default."""
        return ()

    def charts(self, storage: Storage) -> Mapping[str, Mapping[int, int]]:
        """Histograms for the report beside those that units have counted, by their titles; none by default."""
        return {}

    def advice(self, datasets: Mapping[str, Tally]) -> Sequence[str]:
        """What a user should know of the output by dataset, in sentences; nothing by default."""
        return ()

    def finish(self, storage: Storage, records: Sequence[UnitRecord]) -> Sequence[str]:
        """Describe the whole once all units are in place, and name the files that do; none by default."""
        return ()


class TableJob(Job):
    """A job whose units become Parquet files `part-NNNNNN.parquet` of rows of one `schema`."""

    schema: pa.Schema
    row_name = "rows"

    @abstractmethod
    def rows(self, unit: Unit, output: UnitOutput) -> Iterable[Mapping[str, Any]]:
        """The rows of a unit; call `output.read`, `output.keep` and `output.reject` for what becomes of its sources."""

    def run(self, unit: Unit, output: UnitOutput) -> None:
        """Write the rows as they come."""
        writer: pq.ParquetWriter | None = None
        batch: list[Mapping[str, Any]] = []
        path = output.folder / f"part-{unit.number:06d}.parquet"

        def flush() -> None:
            nonlocal writer
            if batch:
                writer = writer or pq.ParquetWriter(path, self.schema, compression="zstd")
                writer.write_table(pa.Table.from_pylist(batch, schema=self.schema))
                batch.clear()

        try:
            for row in self.rows(unit, output):
                batch.append(row)
                if len(batch) == TABLE_BATCH_ROWS:
                    flush()
            flush()
        finally:
            if writer is not None:
                writer.close()
