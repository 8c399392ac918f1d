"""The stored plan of a job: its sources in order, cut into units.

It decides the output, and never changes but by adding. `_codectok/plan.json` says what was asked for; beside it, each
generation (the first listing, then one for every extension) has a table of its sources and one of its units.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue, ValidationError

from codectok.config import StrictModel
from codectok.errors import InputError
from codectok.storage import Storage

from .listing import JOB_FOLDER, Argument, Listing
from .sources import CONTAINERS, Kind, Source, estimated_seconds

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


@dataclass(frozen=True)
class Unit:
    """A share of the work that becomes one output file."""

    number: int
    sources: tuple[Source, ...]
    split: Split = "train"


@dataclass(frozen=True, slots=True)
class UnitOutline:
    """A unit without its sources."""

    number: int
    generation: int
    split: Split
    first_source: int
    n_sources: int
    estimated_seconds: float


class Generation(StrictModel):
    """What one listing added."""

    arguments: tuple[Argument, ...]
    roots: dict[str, str]
    sources: int
    units: int
    ignored: int
    listing_sha256: str

    @property
    def files(self) -> int:
        """Sources, those passed over included."""
        return self.sources + self.ignored


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
        self.roots = {name: root for generation in header.generations for name, root in generation.roots.items()}
        # A moved corpus has new times: sizes must do.
        self._moved = {name for name, root in roots.items() if self.roots.get(name, root) != root}
        self.roots |= roots
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
    def ignored(self) -> int:
        """Files that were passed over when listing."""
        return sum(generation.ignored for generation in self.header.generations)

    def unit(self, number: int) -> Unit:
        """A unit with its sources."""
        outline = self.units[number]
        if outline.generation not in self._tables:
            self._tables = {outline.generation: _SourceTable(self._storage, outline.generation)}
        rows = self._tables[outline.generation].rows(outline.first_source, outline.n_sources)
        sources = [_source(row, self.roots) for row in rows]
        unmoved = [replace(s, modified=None) if s.dataset in self._moved else s for s in sources]
        return Unit(number, tuple(unmoved), outline.split)


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


def store_generation(
    storage: Storage,
    before: Plan | None,
    described: PlanHeader,
    listing: Listing,
    unit_seconds: float,
    validation: float,
) -> None:
    """Cut the sources of `listing` that `before` has not into units, and add them to the plan.

    Args:
        before: the plan so far.
        described: verb and options, for a plan that begins.
        unit_seconds: estimated audio of a unit.
        validation: share of the files whose units are marked as validation.
    """
    listing.split_containers(unit_seconds)
    order = _order(listing, _known(storage, before), validation)
    number = len(before.header.generations) if before else 0
    first_unit = len(before.units) if before else 0
    units = _cut_into_units([(split, listing, i) for split, *_, i in order], unit_seconds, first_unit)
    sources = _source_table(listing, [entry[-1] for entry in order])
    _write_table(storage, _sources_file(number), sources)
    _write_table(storage, _units_file(number), units)
    generation = Generation(
        arguments=listing.arguments,
        roots=listing.roots,
        sources=len(sources),
        units=len(units),
        ignored=listing.ignored,
        listing_sha256=_digest(sources),
    )
    header = before.header if before else described
    header = header.model_copy(update={"generations": (*header.generations, generation)})
    storage.write(PLAN_FILE, header.model_dump_json(indent=2).encode() + b"\n")


def copy_plan(plan: Plan, storage: Storage, target: Storage, described: PlanHeader) -> None:
    """Store the sources and units of `plan`, which lies in `storage`, as the plan of another job in `target`."""
    there = target.sizes(PLAN_FOLDER)
    for name in storage.sizes(PLAN_FOLDER):
        if name not in there:
            target.write(name, storage.read(name))
    header = described.model_copy(update={"generations": plan.header.generations})
    target.write(PLAN_FILE, header.model_dump_json(indent=2).encode() + b"\n")


def ordered_sources(listing: Listing) -> Iterator[Source]:
    """All sources of a listing, each once, by dataset and path."""
    order = [entry[-1] for entry in _order(listing, set(), 0.0)]
    for batch in _source_table(listing, order).to_batches(max_chunksize=ROW_GROUP_SOURCES):
        for row in batch.to_pylist():
            yield _source(row, listing.roots)


def differences(plan: Plan, described: PlanHeader, arguments: tuple[Argument, ...]) -> list[str]:
    """What a command asks for and the plan does not say, in words; empty if it is the same job."""
    header = plan.header
    found = []
    if header.verb != described.verb:
        return [f"it was made by `{header.verb}`"]
    if header.bytes_version != described.bytes_version:
        found.append("another version of codectok wrote it")
    for name in sorted(header.options.keys() | described.options.keys()):
        before, now = header.options.get(name), described.options.get(name)
        if before != now:
            found.append(f"{name.replace('_', '-')} was {_words(before)} and is {_words(now)}")
    union = {argument for generation in header.generations for argument in generation.arguments}
    if set(arguments) not in [union, *(set(generation.arguments) for generation in header.generations)]:
        added = [_describe(argument) for argument in arguments if argument not in union]
        missing = [_describe(argument) for argument in sorted(union - set(arguments), key=_describe)]
        changes = ["new " + ", ".join(added)] * bool(added) + ["without " + ", ".join(missing)] * bool(missing)
        found.append(f"sources differ ({'; '.join(changes)})")
    return found


def _describe(argument: Argument) -> str:
    return f"{argument.dataset}/{argument.pattern}".rstrip("/")


def _words(value: object) -> str:
    return "not given" if value is None else str(value)


def _sources_file(generation: int) -> str:
    return f"{PLAN_FOLDER}/{generation:03d}-sources.parquet"


def _units_file(generation: int) -> str:
    return f"{PLAN_FOLDER}/{generation:03d}-units.parquet"


Entry = tuple[int, str, bytes, float, float, str, int]
SourceName = tuple[str, bytes, float, float, str]


def _order(listing: Listing, known: set[SourceName], validation: float) -> list[Entry]:
    """Positions in the listing, each source once: training first, then by dataset, path, start, end and id."""
    order = []
    for i, (dataset, path) in enumerate(zip(listing.datasets, listing.paths, strict=True)):
        row = listing.described.get(i)
        start, end, name = (row.start or 0.0, row.end or 0.0, row.id or "") if row else (0.0, 0.0, "")
        if i in listing.ranges:
            start = float(listing.ranges[i][0])  # of a container: parts in their order
        encoded = path.encode("utf-8", "surrogateescape")
        if not known or (dataset, encoded, start, end, name) not in known:
            held_out = validation > 0 and _share_of(dataset, encoded) < validation
            order.append((int(held_out), dataset, encoded, start, end, name, i))
    order.sort()
    unique = [entry for entry, previous in zip(order, [None, *order], strict=False) if _differ(entry, previous)]
    return unique


def _differ(entry: Entry, previous: Entry | None) -> bool:
    return previous is None or entry[:-1] != previous[:-1]


def _share_of(dataset: str, path: bytes) -> float:
    """A number from 0 to 1 that is the file's own, so that all of a recording is on one side of a split."""
    digest = hashlib.sha256(dataset.encode() + b"\0" + path).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _known(storage: Storage, before: Plan | None) -> set[SourceName]:
    known = set()
    for number in range(len(before.header.generations) if before else 0):
        table = _read_table(storage, _sources_file(number), ["dataset", "path", "start", "end", "id", "first_byte"])
        columns = [table.column(name).to_pylist() for name in ("dataset", "path", "start", "end", "id", "first_byte")]
        known.update(
            (dataset, path, float(first_byte or start or 0.0), end or 0.0, name or "")
            for dataset, path, start, end, name, first_byte in zip(*columns, strict=True)
        )
    return known


def _cut_into_units(order: list[tuple[int, Listing, int]], unit_seconds: float, first_unit: int) -> pa.Table:
    """Group neighbours up to an estimated `unit_seconds`.

    A container is a unit of its own, and stretches of a file stay together, since it is decoded once for all of them.
    """
    rows: dict[str, list[Any]] = {name: [] for name in UNIT_SCHEMA.names}
    previous: tuple[int, str, str, Kind] | None = None
    filled = 0.0
    for position, (split, listing, i) in enumerate(order):
        row = listing.described.get(i)
        start, end = (row.start, row.end) if row else (None, None)
        seconds = estimated_seconds(listing.paths[i], listing.bytes_of(i), start, end)
        current = (split, listing.datasets[i], listing.paths[i], listing.kinds[i])
        if (
            previous is None
            or split != previous[0]
            or not CONTAINERS.isdisjoint((current[3], previous[3]))
            or (filled + seconds > unit_seconds and current[1:3] != previous[1:3])
        ):
            for name, value in zip(
                UNIT_SCHEMA.names, (first_unit + len(rows["unit"]), SPLITS[split], position, 0, 0.0), strict=True
            ):
                rows[name].append(value)
            filled = 0.0
        previous = current
        filled += seconds
        rows["n_sources"][-1] += 1
        rows["estimated_seconds"][-1] = filled
    return pa.table(rows, schema=UNIT_SCHEMA)


def _source_table(listing: Listing, order: list[int]) -> pa.Table:
    def described(name: str) -> list[Any]:
        if not listing.described:
            return [None] * len(order)
        rows = (listing.described.get(i) for i in order)
        return [None if row is None else getattr(row, name) for row in rows]

    columns = {
        "dataset": [listing.datasets[i] for i in order],
        "path": [listing.paths[i].encode("utf-8", "surrogateescape") for i in order],
        "kind": [listing.kinds[i] for i in order],
        "size": [listing.sizes[i] for i in order],
        "modified": [listing.modified[i] for i in order],
        "first_byte": [listing.ranges[i][0] if i in listing.ranges else None for i in order],
        "last_byte": [listing.ranges[i][1] if i in listing.ranges else None for i in order],
    }
    columns |= {name: described(name) for name in SOURCE_SCHEMA.names if name not in columns}
    return pa.table([pa.array(columns[field.name], field.type) for field in SOURCE_SCHEMA], schema=SOURCE_SCHEMA)


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
        self._file = pq.ParquetFile(storage.open(_sources_file(generation)))
        metadata = self._file.metadata
        self._group_ends = []
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


def check_unit_seconds(unit_seconds: float) -> None:
    """Refuse a size of units that is no positive number."""
    if not 0 < unit_seconds < math.inf:
        raise InputError(f"Files of {unit_seconds:g} s of audio are impossible; give a number of seconds above 0.")
