"""The stored plan of a job: its sources in order, cut into units.

The plan decides the output, and only grows. `_codectok/plan.json` holds verb, options and arguments; beside it, each
generation (the first listing, then one for every extension) has a table of its sources and one of its units.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from codectok.errors import InputError, damage_errors
from codectok.names import JOB_FOLDER
from codectok.sources.kinds import CONTAINERS
from codectok.sources.listing.arguments import Argument
from codectok.sources.listing.ordering import SourceName, decode_path, encode_path
from codectok.sources.listing.sources import Listing
from codectok.sources.source import LATER_ROW_FIELDS, ROW_FIELDS, Source, row_digest
from codectok.sources.unused import UnusedCounts, UnusedEntry, sum_entries, sum_unused
from codectok.storage import Storage, is_url

from .header import Generation, PlanHeader
from .outlines import UNIT_SCHEMA, UnitOutlines
from .reading import reading_fields
from .stored_tables import REMEDY, ROW_GROUP_ROWS, StoredTable, read_table, write_table
from .unit import Unit

PLAN_FILE = f"{JOB_FOLDER}/plan.json"
PLAN_FOLDER = f"{JOB_FOLDER}/plan"

# Paths are bytes: on Linux they need not be valid text.
SOURCE_SCHEMA = pa.schema(
    [
        ("dataset", pa.dictionary(pa.int32(), pa.string())),
        ("path", pa.binary()),
        ("kind", pa.dictionary(pa.int32(), pa.string())),
        ("size", pa.int64()),
        ("modified", pa.int64()),
        ("content", pa.int64()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("id", pa.string()),
        ("text", pa.string()),
        ("language", pa.string()),
        ("speaker", pa.string()),
        ("category", pa.string()),
        ("parts", pa.string()),
        ("channel", pa.int32()),
        ("extra", pa.string()),
        ("problem", pa.string()),
        ("companion", pa.string()),
        ("first_byte", pa.int64()),
        ("last_byte", pa.int64()),
    ]
)
# Columns whose field of `Source` has another name.
FIELD_OF_COLUMN = {"parts": "supervisions"}
COLUMN_OF_FIELD = {field: column for column, field in FIELD_OF_COLUMN.items()}


@dataclass(frozen=True, slots=True)
class Move:
    """A dataset whose folder or URL was `before` when it was planned, and is `now` in the command."""

    dataset: str
    before: str
    now: str


class Plan:
    """A stored plan; sources are read with their units.

    Attributes:
        header: verb, options and generations.
        roots: folder or URL of every dataset now.
        moves: datasets that lay elsewhere when they were planned.
        units: without their sources.
    """

    def __init__(self, storage: Storage, header: PlanHeader, roots: Mapping[str, str]) -> None:
        self.header = header
        stored = {name: root for generation in header.generations for name, root in generation.roots.items()}
        self.roots = {**stored, **roots}
        self.moves = [Move(name, stored[name], root) for name, root in roots.items() if stored.get(name, root) != root]
        self._storage = storage
        self._reading = reading_fields(header.options)
        self._tables: dict[int, StoredTable] = {}
        self.units = UnitOutlines()
        for number, generation in enumerate(header.generations):
            table = read_table(storage, _units_file(number), UNIT_SCHEMA)
            with damage_errors(f"{storage.url}/{_units_file(number)}", REMEDY):
                self.units.add(table, generation.units, generation.sources)

    @property
    def n_sources(self) -> int:
        """Sources of all generations."""
        return sum(generation.sources for generation in self.header.generations)

    @property
    def arguments(self) -> set[Argument]:
        """Arguments of all generations."""
        return {argument for generation in self.header.generations for argument in generation.arguments}

    @property
    def ignored(self) -> int:
        """Number of files that were not read in the last listing of each argument."""
        last: dict[Argument, int] = {}
        for generation in self.header.generations:
            last |= zip(generation.arguments, generation.ignored, strict=True)
        return sum(last.values())

    @property
    def unused(self) -> UnusedCounts:
        """Files, columns and other parts that were not used in the last listing of each argument."""
        last: dict[Argument, UnusedCounts] = {}
        for generation in self.header.generations:
            last |= zip(generation.arguments, generation.unused, strict=False)
        return sum_unused(last.values())

    @property
    def layouts(self) -> dict[str, UnusedEntry]:
        """Number and example of the files by which corpora were recognised in the last listing of each argument."""
        last: dict[Argument, dict[str, UnusedEntry]] = {}
        for generation in self.header.generations:
            last |= zip(generation.arguments, generation.layouts, strict=False)
        return sum_entries(last.values())

    def unit(self, number: int) -> Unit:
        """Read a unit with its sources."""
        outline = self.units[number]
        if outline.generation not in self._tables:
            self._tables = {
                outline.generation: StoredTable(self._storage, _sources_file(outline.generation), SOURCE_SCHEMA)
            }
        rows = self._tables[outline.generation].rows(outline.first_source, outline.n_sources)
        with damage_errors(f"{self._storage.url}/{_sources_file(outline.generation)}", REMEDY):
            sources = [self._relocated(_source(row, self.roots, self._reading), outline.generation) for row in rows]
        return Unit(number, tuple(sources), outline.split)

    def source_of_each_dataset(self) -> list[Source]:
        """Read a source of each dataset that the plan has, by the name of the dataset."""
        found: dict[str, Source] = {}
        first_unit = 0
        for number, generation in enumerate(self.header.generations):
            table = read_table(self._storage, _sources_file(number), SOURCE_SCHEMA, ["dataset"])
            column = table.column("dataset").unify_dictionaries().combine_chunks()
            codes, places = np.unique(column.indices.to_numpy(), return_index=True)
            for code, place in zip(codes.tolist(), places.tolist(), strict=True):
                name = column.dictionary[code].as_py()
                if name not in found:
                    unit = self.units.holding(place, first_unit, first_unit + generation.units)
                    found[name] = self.unit(unit).sources_of(name)[0]
            first_unit += generation.units
        return [found[name] for name in sorted(found)]

    def files(self, generation: int) -> list[Source]:
        """Read the files of a generation, each once and whole, by dataset and path."""
        table = read_table(self._storage, _sources_file(generation), SOURCE_SCHEMA)
        with damage_errors(f"{self._storage.url}/{_sources_file(generation)}", REMEDY):
            whole = {
                (source.dataset, encode_path(source.path)): replace(source, first_byte=None, last_byte=None)
                for source in _sources_in(table, self.roots, self._reading)
            }
            return [self._relocated(whole[name], generation) for name in sorted(whole)]

    def _relocated(self, source: Source, generation: int) -> Source:
        # A moved corpus has new times; the contents of files are compared, but a store knows them in another way.
        listed = self.header.generations[generation].roots[source.dataset]
        comparable = source.content is not None and not is_url(listed) and not is_url(source.root)
        return source if listed == source.root or comparable else replace(source, modified=None)


def _source(row: dict[str, Any], roots: Mapping[str, str], reading: Mapping[str, Any]) -> Source:
    fields = {FIELD_OF_COLUMN.get(name, name): value for name, value in row.items()} | dict(reading)
    fields["path"] = decode_path(row["path"])
    return Source(root=roots[row["dataset"]], **fields)


def load_plan(storage: Storage, roots: Mapping[str, str]) -> Plan | None:
    """Load the plan of an output folder, or None; `roots` are the folders or URLs of its datasets now.

    Raises:
        InputError: the plan is damaged or of another version.
    """
    try:
        data = storage.read(PLAN_FILE)
    except FileNotFoundError:
        return None
    try:
        header = PlanHeader.model_validate_json(data)
        _check_counts(header)
        return Plan(storage, header, roots)
    except (ValueError, FileNotFoundError, RecursionError):
        raise InputError(
            f"The plan in {storage.url}/{PLAN_FILE} is damaged or of another version; choose another folder."
        ) from None


def _check_counts(header: PlanHeader) -> None:
    for generation in header.generations:
        lists = (generation.ignored, generation.unused, generation.layouts)
        if any(len(entries) not in (0, len(generation.arguments)) for entries in lists):
            raise ValueError("counts of some arguments are missing")


def add_generation(storage: Storage, header: PlanHeader, listing: Listing, sources: pa.Table, units: pa.Table) -> None:
    """Store new sources and their units as a generation of the plan with `header`."""
    number = len(header.generations)
    write_table(storage, _sources_file(number), sources)
    write_table(storage, _units_file(number), units)
    generation = Generation(
        arguments=listing.arguments,
        roots=dict(listing.roots),
        sources=len(sources),
        units=len(units),
        ignored=tuple(listing.passed_over.get(argument, 0) for argument in listing.arguments),
        unused=tuple(sum_unused([listing.unused.get(argument, {})]) for argument in listing.arguments),
        layouts=tuple(sum_entries([listing.layouts.get(argument, {})]) for argument in listing.arguments),
        listing_sha256=_digest(sources),
    )
    _write_header(storage, header.model_copy(update={"generations": (*header.generations, generation)}))


def copy_plan(plan: Plan, storage: Storage, target: Storage, described: PlanHeader) -> None:
    """Copy the sources and units of `plan` from `storage` to `target`, as the plan of another job."""
    copied = _generations_in(target)
    for number, generation in enumerate(plan.header.generations):
        if copied[number : number + 1] != (generation,):
            for name in (_sources_file(number), _units_file(number)):
                target.write(name, storage.read(name))
    _write_header(target, described.model_copy(update={"generations": plan.header.generations}))


def _generations_in(storage: Storage) -> tuple[Generation, ...]:
    """Read the generations of a copied plan; none if it is missing or damaged, so that it is copied again."""
    try:
        return PlanHeader.model_validate_json(storage.read(PLAN_FILE)).generations
    except (FileNotFoundError, ValueError, RecursionError):
        return ()


def names_of_sources(storage: Storage, plan: Plan) -> set[SourceName]:
    """Read the names of all sources; ranges of a container have one name."""
    names: set[SourceName] = set()
    for number in range(len(plan.header.generations)):
        row_columns = [COLUMN_OF_FIELD.get(name, name) for name in (*ROW_FIELDS, *LATER_ROW_FIELDS)]
        table = read_table(storage, _sources_file(number), SOURCE_SCHEMA, ["dataset", "path", "kind", *row_columns])
        for batch in table.to_batches(max_chunksize=ROW_GROUP_ROWS):
            columns = [column.to_pylist() for column in batch.columns]
            names.update(
                SourceName(dataset, path, "" if kind in CONTAINERS else row_digest(row))
                for dataset, path, kind, *row in zip(*columns, strict=True)
            )
    return names


def _sources_in(table: pa.Table, roots: Mapping[str, str], reading: Mapping[str, Any]) -> Iterator[Source]:
    for batch in table.to_batches(max_chunksize=ROW_GROUP_ROWS):
        for row in batch.to_pylist():
            yield _source(row, roots, reading)


def _sources_file(generation: int) -> str:
    return f"{PLAN_FOLDER}/{generation:03d}-sources.parquet"


def _units_file(generation: int) -> str:
    return f"{PLAN_FOLDER}/{generation:03d}-units.parquet"


def _write_header(storage: Storage, header: PlanHeader) -> None:
    storage.write(PLAN_FILE, header.model_dump_json(indent=2).encode() + b"\n")


def _digest(table: pa.Table) -> str:
    """Hash of everything that decides the output: all columns but the times and contents of files."""
    sink = hashlib.sha256()
    for batch in table.drop_columns(["modified", "content"]).to_batches(max_chunksize=ROW_GROUP_ROWS):
        sink.update(repr([batch.column(i).to_pylist() for i in range(batch.num_columns)]).encode())
    return sink.hexdigest()
