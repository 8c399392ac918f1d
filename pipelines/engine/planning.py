"""Makes the plan of a job: orders what was listed, and cuts it into units."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from codectok.errors import InputError
from codectok.sources.arguments import Argument, still_there
from codectok.sources.listing import Listing
from codectok.sources.source import CONTAINERS, Kind, Source, estimated_seconds, row_digest, row_of
from codectok.storage import Storage

from .cutting import CuttingPolicy
from .job import Job
from .plan import (
    SOURCE_SCHEMA,
    SPLITS,
    UNIT_SCHEMA,
    Plan,
    PlanHeader,
    SourceName,
    add_generation,
    differences,
    names_of_sources,
    sources_in,
)
from .shares import TABLE_BYTES_PER_SECOND, cut_into_shares

RANGE_COLUMNS = ("first_byte", "last_byte")
Entry = tuple[int, str, bytes, float, float, str, str, int]


def store_generation(
    storage: Storage,
    before: Plan | None,
    described: PlanHeader,
    listing: Listing,
    cut: CuttingPolicy,
) -> None:
    """Cut the sources of `listing` that `before` has not into units, and add them to the plan.

    Nothing is added where nothing is new.

    Args:
        before: the plan so far.
        described: verb and options, for a plan that begins.
        listing: of sources.
        cut: how.
    """
    if cut.part_bytes is None:
        listing.split_containers(cut.unit_seconds)
    known = names_of_sources(storage, before) if before else set()
    order = _order(listing, known, cut.validation)
    splits = array("b", (entry[0] for entry in order))
    positions: Sequence[int] = array("q", (entry[-1] for entry in order))
    del order  # takes as much room as the listing
    if before and not positions and before.arguments.issuperset(listing.arguments):
        return
    first_unit = len(before.units) if before else 0
    if cut.part_bytes is None:
        units = _cut_into_units(listing, positions, splits, cut.unit_seconds, first_unit)
    elif cut.whole_files:
        units = _cut_between_files(listing, positions, cut.part_bytes, first_unit)
    else:
        positions, units = cut_into_shares(listing, positions, cut.part_bytes, first_unit, cut.in_every_unit)
    sources = _source_table(listing, positions)
    add_generation(storage, before.header if before else described, listing, sources, units)


def ordered_sources(listing: Listing) -> Iterator[Source]:
    """All sources of a listing, each once, by dataset and path."""
    positions = [entry[-1] for entry in _order(listing, set(), 0.0)]
    return sources_in(_source_table(listing, positions), listing.roots)


def header_of(job: Job) -> PlanHeader:
    """What a job is, with no sources yet."""
    return PlanHeader(verb=job.verb, bytes_version=job.bytes_version, options=dict(job.options()), generations=())


def refuse_other_job(plan: Plan, job: Job, arguments: tuple[Argument, ...], storage: Storage, extend: bool) -> None:
    """Stop unless `job` over `arguments` is what is stored in `plan`, or may extend it."""
    found = differences(plan, header_of(job), arguments)
    if found.others or (found.sources and not extend):
        advice = (
            "choose another folder" if found.others else "add --extend to take in new sources, or choose another folder"
        )
        listed = [*found.others, *([found.sources] if found.sources else [])]
        raise InputError(f"{storage.url} holds the output of another job: {', '.join(listed)}; {advice}.")
    for move in plan.moves:
        if any(still_there(argument, move.before) for argument in plan.arguments if argument.dataset == move.dataset):
            raise InputError(
                f"The dataset {move.dataset!r} of {storage.url} lies in {move.before}, which is still there, and this"
                f" command takes it from {move.now}; name another dataset, as in NAME=SOURCE with --extend, remove the"
                " old place if the corpus has moved, or choose another output folder."
            )


def _order(listing: Listing, known: set[SourceName], validation: float) -> list[Entry]:
    """Positions in the listing: training first, then by dataset, path, start, end and id.

    What is listed twice comes up once; rows of a manifest that differ in anything are not the same.
    """
    order = []
    for i, (dataset, path) in enumerate(zip(listing.datasets, listing.paths, strict=True)):
        # What a manifest says of a container is not used.
        row = None if listing.kinds[i] in CONTAINERS else listing.described.get(i)
        start, end, name = (row.start or 0.0, row.end or 0.0, row.id or "") if row else (0.0, 0.0, "")
        digest = row_digest(row_of(row)) if row else ""
        encoded = path.encode("utf-8", "surrogateescape")
        if not known or (dataset, encoded, digest) not in known:
            if i in listing.ranges:
                start = float(listing.ranges[i][0])  # of a container: parts in their order
            held_out = validation > 0 and _share_of(dataset, encoded) < validation
            order.append((int(held_out), dataset, encoded, start, end, name, digest, i))
    order.sort()
    unique = [entry for entry, previous in zip(order, [None, *order], strict=False) if _differ(entry, previous)]
    return unique


def _differ(entry: Entry, previous: Entry | None) -> bool:
    return previous is None or entry[:-1] != previous[:-1]


def _share_of(dataset: str, path: bytes) -> float:
    """A number from 0 to 1 that is the file's own, so that all of a recording is on one side of a split."""
    digest = hashlib.sha256(dataset.encode() + b"\0" + path).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _cut_into_units(
    listing: Listing, positions: Sequence[int], splits: Sequence[int], unit_seconds: float, first_unit: int
) -> pa.Table:
    """Group neighbours up to an estimated `unit_seconds`.

    A container is a unit of its own, and spans of a file stay together, since it is decoded once for all of them.
    """
    rows: dict[str, list[Any]] = {name: [] for name in UNIT_SCHEMA.names}
    previous: tuple[int, str, str, Kind] | None = None
    filled = 0.0
    for position, (split, i) in enumerate(zip(splits, positions, strict=True)):
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


def _cut_between_files(listing: Listing, positions: Sequence[int], part_bytes: float, first_unit: int) -> pa.Table:
    """Group neighbours of one dataset up to `part_bytes`; a larger file is a unit of its own."""
    rows: list[dict[str, Any]] = []
    filled, dataset = 0, ""
    for position, i in enumerate(positions):
        size = listing.sizes[i]
        if size is None:
            raise InputError(f"The size of {listing.paths[i]} is not known, so that it cannot be planned.")
        if not rows or filled + size > part_bytes or listing.datasets[i] != dataset:
            values = (first_unit + len(rows), SPLITS[0], position, 0, 0.0)
            rows.append(dict(zip(UNIT_SCHEMA.names, values, strict=True)))
            filled, dataset = 0, listing.datasets[i]
        filled += size
        rows[-1]["n_sources"] += 1
        rows[-1]["estimated_seconds"] = filled / TABLE_BYTES_PER_SECOND
    return pa.Table.from_pylist(rows, UNIT_SCHEMA)


def _source_table(listing: Listing, positions: Sequence[int]) -> pa.Table:
    listed: dict[str, Sequence[Any]] = {
        "dataset": listing.datasets,
        "kind": listing.kinds,
        "size": listing.sizes,
        "modified": listing.modified,
    }

    def column(name: str) -> list[Any]:
        if name == "path":
            return [listing.paths[i].encode("utf-8", "surrogateescape") for i in positions]
        if name in RANGE_COLUMNS:
            end = RANGE_COLUMNS.index(name)
            return [listing.ranges[i][end] if i in listing.ranges else None for i in positions]
        return [listed[name][i] for i in positions] if name in listed else listing.described.column(name, positions)

    # One after the other, so that only one at a time is a list of objects.
    arrays = [pa.array(column(field.name), field.type) for field in SOURCE_SCHEMA]
    return pa.table(arrays, schema=SOURCE_SCHEMA)


def check_unit_seconds(unit_seconds: float) -> None:
    """Refuse a size of units that is no positive number."""
    if not 0 < unit_seconds < math.inf:
        raise InputError(f"Files of {unit_seconds:g} s of audio are impossible; give a number of seconds above 0.")
