"""Makes the plan of a job: orders what was listed, and cuts it into units."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from codectok.errors import InputError
from codectok.storage import Storage

from .job import Job
from .listing import Argument, Listing
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
from .sources import CONTAINERS, ROW_FIELDS, Kind, Source, estimated_seconds, row_digest

Entry = tuple[int, str, bytes, float, float, str, str, int]


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
    order = _order(listing, names_of_sources(storage, before) if before else set(), validation)
    units = _cut_into_units(
        [(split, listing, i) for split, *_, i in order], unit_seconds, len(before.units) if before else 0
    )
    sources = _source_table(listing, [entry[-1] for entry in order])
    add_generation(storage, before.header if before else described, listing, sources, units)


def ordered_sources(listing: Listing) -> Iterator[Source]:
    """All sources of a listing, each once, by dataset and path."""
    order = [entry[-1] for entry in _order(listing, set(), 0.0)]
    return sources_in(_source_table(listing, order), listing.roots)


def header_of(job: Job) -> PlanHeader:
    """What a job is, with no sources yet."""
    return PlanHeader(verb=job.verb, bytes_version=job.bytes_version, options=dict(job.options()), generations=())


def refuse_other_job(plan: Plan, job: Job, arguments: tuple[Argument, ...], storage: Storage, extend: bool) -> None:
    """Stop unless `job` over `arguments` is what is stored in `plan`, or may extend it."""
    found = differences(plan, header_of(job), arguments)
    sources_differ = [line for line in found if line.startswith("sources differ")]
    others = [line for line in found if line not in sources_differ]
    if others or (sources_differ and not extend):
        advice = "choose another folder" if others else "add --extend to take in new sources, or choose another folder"
        raise InputError(f"{storage.url} holds the output of another job: {', '.join(found)}; {advice}.")


def _order(listing: Listing, known: set[SourceName], validation: float) -> list[Entry]:
    """Positions in the listing: training first, then by dataset, path, start, end and id.

    What is listed twice comes up once; rows of a manifest that differ in anything are not the same.
    """
    order = []
    for i, (dataset, path) in enumerate(zip(listing.datasets, listing.paths, strict=True)):
        # What a manifest says of a container is not used.
        row = None if listing.kinds[i] in CONTAINERS else listing.described.get(i)
        start, end, name = (row.start or 0.0, row.end or 0.0, row.id or "") if row else (0.0, 0.0, "")
        digest = row_digest([getattr(row, field) for field in ROW_FIELDS]) if row else ""
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


def check_unit_seconds(unit_seconds: float) -> None:
    """Refuse a size of units that is no positive number."""
    if not 0 < unit_seconds < math.inf:
        raise InputError(f"Files of {unit_seconds:g} s of audio are impossible; give a number of seconds above 0.")
