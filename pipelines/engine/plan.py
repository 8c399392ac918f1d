"""The stored plan of a job: its sources in order, cut into units.

It decides the output, and never changes but by adding. `_codectok/plan.json` says what was asked for; beside it, each
generation (the first listing, then one for every extension) has a table of its sources and one of its units.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue, ValidationError

from codectok.config import StrictModel
from codectok.errors import InputError
from codectok.names import JOB_FOLDER
from codectok.sources.arguments import Argument
from codectok.sources.listing import Listing
from codectok.sources.source import CONTAINERS, ROW_FIELDS, Source, row_digest
from codectok.storage import Storage

PLAN_FILE = f"{JOB_FOLDER}/plan.json"
PLAN_FOLDER = f"{JOB_FOLDER}/plan"
Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = get_args(Split)

# Paths are bytes: on Linux they need not be text.
SOURCE_SCHEMA = pa.schema(
    [
        ("dataset", pa.dictionary(pa.int32(), pa.string())),
        ("path", pa.binary()),
        ("kind", pa.dictionary(pa.int32(), pa.string())),
        ("size", pa.int64()),
        ("modified", pa.int64()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("id", pa.string()),
        ("text", pa.string()),
        ("language", pa.string()),
        ("speaker", pa.string()),
        ("category", pa.string()),
        ("parts", pa.string()),
        ("first_byte", pa.int64()),
        ("last_byte", pa.int64()),
    ]
)
UNIT_SCHEMA = pa.schema(
    [("unit", pa.int32()), ("split", pa.string()), ("first_source", pa.int64()), ("n_sources", pa.int32()),
     ("estimated_seconds", pa.float64())]
)  # fmt: skip
ROW_GROUP_SOURCES = 65_536
# Characters of an option's two values that are shown where it has changed: two fingerprints, but no templates.
LONGEST_CHANGE = 160
SourceName = tuple[str, bytes, str]


@dataclass(frozen=True)
class Unit:
    """A share of the work that becomes one output file.

    Attributes:
        sources: to read.
        crashed: sources of the plan that crash their decoder, to be rejected and not opened.
    """

    number: int
    sources: tuple[Source, ...]
    split: Split = "train"
    crashed: tuple[Source, ...] = ()

    def without(self, culprits: Iterable[Source]) -> Unit:
        """The unit with `culprits`, each a source of it or some clips of a container, among the crashed."""
        sources, crashed = list(self.sources), list(self.crashed)
        for culprit in culprits:
            place = next(i for i, source in enumerate(sources) if source.holds(culprit))
            sources[place : place + 1] = sources[place].without(culprit)
            crashed.append(culprit)
        return replace(self, sources=tuple(sources), crashed=tuple(crashed))


@dataclass(frozen=True, slots=True)
class UnitOutline:
    """A unit without its sources."""

    number: int
    generation: int
    split: Split
    first_source: int
    n_sources: int
    estimated_seconds: float


@dataclass(frozen=True, slots=True)
class Move:
    """A dataset that lay in one folder (or URL) when it was planned, and is said to lie in another."""

    dataset: str
    before: str
    now: str


@dataclass(frozen=True, slots=True)
class Differences:
    """What a command asks for and a plan does not say, in words.

    Attributes:
        sources: arguments that are new or missing.
        others: what can never be added to the plan.
    """

    sources: str | None = None
    others: tuple[str, ...] = ()


class Generation(StrictModel):
    """What one listing added; `ignored` counts the files that were passed over, for each argument."""

    arguments: tuple[Argument, ...]
    roots: dict[str, str]
    sources: int
    units: int
    ignored: tuple[int, ...]
    listing_sha256: str


class PlanHeader(StrictModel):
    """Contents of `plan.json`; `bytes_version` is the one of the job's code that decides the output's bytes."""

    format: Literal["codectok.plan"] = "codectok.plan"
    version: Literal[1] = 1
    verb: str
    bytes_version: int
    options: dict[str, JsonValue]
    generations: tuple[Generation, ...]

    @property
    def hash(self) -> str:
        """Changes with everything that decides the output; not when a corpus is moved."""
        described = self.model_dump(mode="json", exclude={"generations": {"__all__": {"roots"}}})
        return hashlib.sha256(repr(_sorted(described)).encode()).hexdigest()


class Plan:
    """A stored plan; sources are read as their units are asked for."""

    def __init__(self, storage: Storage, header: PlanHeader, roots: Mapping[str, str]) -> None:
        self.header = header
        stored = {name: root for generation in header.generations for name, root in generation.roots.items()}
        self.roots = {**stored, **roots}
        self.moves = [Move(name, stored[name], root) for name, root in roots.items() if stored.get(name, root) != root]
        self._storage = storage
        self._tables: dict[int, _SourceTable] = {}
        self.units: list[UnitOutline] = []
        for number in range(len(header.generations)):
            columns = _read_table(storage, _units_file(number)).to_pydict()
            self.units += [
                UnitOutline(unit, number, split, first, count, seconds)
                for unit, split, first, count, seconds in zip(*columns.values(), strict=True)
            ]

    @property
    def n_sources(self) -> int:
        """Of all generations."""
        return sum(generation.sources for generation in self.header.generations)

    @property
    def arguments(self) -> set[Argument]:
        """Of all generations."""
        return {argument for generation in self.header.generations for argument in generation.arguments}

    @property
    def ignored(self) -> int:
        """Files that were passed over when each argument was listed last."""
        last: dict[Argument, int] = {}
        for generation in self.header.generations:
            last |= zip(generation.arguments, generation.ignored, strict=True)
        return sum(last.values())

    def unit(self, number: int) -> Unit:
        """A unit with its sources."""
        outline = self.units[number]
        if outline.generation not in self._tables:
            self._tables = {outline.generation: _SourceTable(self._storage, outline.generation)}
        rows = self._tables[outline.generation].rows(outline.first_source, outline.n_sources)
        sources = [_source(row, self.roots) for row in rows]
        return Unit(number, tuple(self._as_it_lies(source, outline.generation) for source in sources), outline.split)

    def files(self, generation: int) -> list[Source]:
        """The files of a generation, each once and whole, by dataset and path."""
        table = _read_table(self._storage, _sources_file(generation))
        whole = {
            (source.dataset, source.path.encode("utf-8", "surrogateescape")): replace(
                source, first_byte=None, last_byte=None
            )
            for source in sources_in(table, self.roots)
        }
        return [self._as_it_lies(whole[name], generation) for name in sorted(whole)]

    def _as_it_lies(self, source: Source, generation: int) -> Source:
        # A moved corpus has new times: sizes must do.
        listed = self.header.generations[generation].roots
        return replace(source, modified=None) if listed[source.dataset] != source.root else source


def _source(row: dict[str, Any], roots: Mapping[str, str]) -> Source:
    path = row.pop("path").decode("utf-8", "surrogateescape")
    return Source(root=roots[row["dataset"]], path=path, **row)


def load_plan(storage: Storage, roots: Mapping[str, str]) -> Plan | None:
    """The plan stored in an output folder, or None; `roots` are where its datasets lie now."""
    try:
        data = storage.read(PLAN_FILE)
    except FileNotFoundError:
        return None
    try:
        return Plan(storage, PlanHeader.model_validate_json(data), roots)
    except (ValidationError, FileNotFoundError):
        raise InputError(
            f"The plan in {storage.url}/{PLAN_FILE} is damaged or of another version; choose another folder."
        ) from None


def add_generation(storage: Storage, header: PlanHeader, listing: Listing, sources: pa.Table, units: pa.Table) -> None:
    """Store what `listing` added to the plan that `header` describes so far."""
    number = len(header.generations)
    _write_table(storage, _sources_file(number), sources)
    _write_table(storage, _units_file(number), units)
    generation = Generation(
        arguments=listing.arguments,
        roots=listing.roots,
        sources=len(sources),
        units=len(units),
        ignored=tuple(listing.passed_over.get(argument, 0) for argument in listing.arguments),
        listing_sha256=_digest(sources),
    )
    _write_header(storage, header.model_copy(update={"generations": (*header.generations, generation)}))


def copy_plan(plan: Plan, storage: Storage, target: Storage, described: PlanHeader) -> None:
    """Store the sources and units of `plan`, which lies in `storage`, as the plan of another job in `target`."""
    there = target.sizes(PLAN_FOLDER)
    for name in storage.sizes(PLAN_FOLDER):
        if name not in there:
            target.write(name, storage.read(name))
    _write_header(target, described.model_copy(update={"generations": plan.header.generations}))


def names_of_sources(storage: Storage, plan: Plan) -> set[SourceName]:
    """Dataset, path and digest of the manifest's row of all sources; the parts of a container are one."""
    names: set[SourceName] = set()
    for number in range(len(plan.header.generations)):
        table = _read_table(storage, _sources_file(number), ["dataset", "path", "kind", *ROW_FIELDS])
        for batch in table.to_batches(max_chunksize=ROW_GROUP_SOURCES):
            columns = [column.to_pylist() for column in batch.columns]
            names.update(
                (dataset, path, "" if kind in CONTAINERS else row_digest(row))
                for dataset, path, kind, *row in zip(*columns, strict=True)
            )
    return names


def sources_in(table: pa.Table, roots: Mapping[str, str]) -> Iterator[Source]:
    """The sources that a table of them describes."""
    for batch in table.to_batches(max_chunksize=ROW_GROUP_SOURCES):
        for row in batch.to_pylist():
            yield _source(row, roots)


def differences(plan: Plan, described: PlanHeader, arguments: tuple[Argument, ...]) -> Differences:
    """What a command asks for and the plan does not say."""
    header = plan.header
    if header.verb != described.verb:
        return Differences(others=(f"it was made by `{header.verb}`",))
    others = []
    if header.bytes_version != described.bytes_version:
        others.append("another version of codectok wrote it")
    for name in sorted(header.options.keys() | described.options.keys()):
        before, now = header.options.get(name), described.options.get(name)
        if before != now:
            others.append(_change(name.replace("_", "-"), _words(before), _words(now)))
    planned = plan.arguments
    if set(arguments) in [planned, *(set(generation.arguments) for generation in header.generations)]:
        return Differences(None, tuple(others))
    added = [_describe(argument) for argument in arguments if argument not in planned]
    missing = [_describe(argument) for argument in sorted(planned - set(arguments), key=_describe)]
    changes = ["new " + ", ".join(added)] * bool(added) + ["without " + ", ".join(missing)] * bool(missing)
    return Differences(f"sources differ ({'; '.join(changes)})", tuple(others))


def _describe(argument: Argument) -> str:
    return f"{argument.dataset}/{argument.pattern}".rstrip("/")


def _change(name: str, before: str, now: str) -> str:
    return f"{name} differs" if len(before + now) > LONGEST_CHANGE else f"{name} was {before} and is {now}"


def _words(value: object) -> str:
    return "not given" if value is None else str(value)


def _sources_file(generation: int) -> str:
    return f"{PLAN_FOLDER}/{generation:03d}-sources.parquet"


def _units_file(generation: int) -> str:
    return f"{PLAN_FOLDER}/{generation:03d}-units.parquet"


def _write_header(storage: Storage, header: PlanHeader) -> None:
    storage.write(PLAN_FILE, header.model_dump_json(indent=2).encode() + b"\n")


def _digest(table: pa.Table) -> str:
    """Hash of all that decides the output: everything but the times of files."""
    sink = hashlib.sha256()
    for batch in table.drop_columns(["modified"]).to_batches(max_chunksize=ROW_GROUP_SOURCES):
        sink.update(repr([batch.column(i).to_pylist() for i in range(batch.num_columns)]).encode())
    return sink.hexdigest()


def _write_table(storage: Storage, name: str, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=ROW_GROUP_SOURCES)
    storage.write(name, buffer.getvalue())


def _read_table(storage: Storage, name: str, columns: list[str] | None = None) -> pa.Table:
    with storage.open(name) as file:
        return pq.read_table(file, columns=columns)


class _SourceTable:
    """The sources of a generation, a row group at a time in memory."""

    def __init__(self, storage: Storage, generation: int) -> None:
        self._file = pq.ParquetFile(storage.open(_sources_file(generation)), pre_buffer=False)
        metadata = self._file.metadata
        self._group_ends: list[int] = []
        for i in range(metadata.num_row_groups):
            self._group_ends.append((self._group_ends[-1] if i else 0) + metadata.row_group(i).num_rows)
        self._held: tuple[int, pa.Table] = (-1, pa.table({}))

    def rows(self, first: int, count: int) -> Iterable[dict[str, Any]]:
        done = 0
        while done < count:
            group = next(i for i, end in enumerate(self._group_ends) if first + done < end)
            start = self._group_ends[group - 1] if group else 0
            if self._held[0] != group:
                self._held = (group, self._file.read_row_group(group))
            part = self._held[1].slice(first + done - start, count - done)
            yield from part.to_pylist()
            done += len(part)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((key, _sorted(item)) for key, item in value.items())
    return [_sorted(item) for item in value] if isinstance(value, list | tuple) else value
