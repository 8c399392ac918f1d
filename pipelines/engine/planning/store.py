"""Makes the plan of a job: lists sources, cuts them into units, stores both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from codectok.errors import InputError
from codectok.pipelines.engine.job import Job
from codectok.sources.contents import contents_of_files
from codectok.sources.listing.arguments import Argument, exists_below
from codectok.sources.listing.ordering import encode_path, ordered_positions
from codectok.sources.listing.sources import Listing
from codectok.storage import Storage, is_url

from .cutting import Cut, CuttingPolicy, cut_listing
from .differences import differences
from .header import PlanHeader
from .outlines import UNIT_SCHEMA
from .plan import FIELD_OF_COLUMN, SOURCE_SCHEMA, Plan, add_generation, names_of_sources

# Columns that hold for all samples of a container, in each of its ranges.
LABELS_OF_SAMPLES = ("language", "speaker", "category", "extra", "companion")


def store_generation(
    storage: Storage,
    before: Plan | None,
    described: PlanHeader,
    listing: Listing,
    policy: CuttingPolicy,
) -> None:
    """Cut the new sources of a listing into units and add them to the plan; do nothing if all are known.

    Args:
        storage: holds the plan.
        before: the plan so far.
        described: verb and options, for a new plan.
        listing: the sources.
        policy: for cutting.
    """
    known = names_of_sources(storage, before) if before else set()
    positions = ordered_positions(listing, known)
    if before and not positions and before.arguments.issuperset(listing.arguments):
        return
    cut = cut_listing(listing, positions, policy)
    first_unit = len(before.units) if before else 0
    header = before.header if before else described
    add_generation(storage, header, listing, _source_table(listing, cut), _unit_table(cut, first_unit))


def header_of(job: Job) -> PlanHeader:
    """The header of a job's plan, without sources."""
    return PlanHeader(verb=job.verb, bytes_version=job.bytes_version, options=dict(job.options()), generations=())


def refuse_other_job(plan: Plan, job: Job, arguments: tuple[Argument, ...], storage: Storage, extend: bool) -> None:
    """Check that `job` over `arguments` is the job of `plan`, or may extend it.

    Raises:
        InputError: options or sources differ, or a dataset lies elsewhere while its old place still exists.
    """
    found = differences(plan, header_of(job), arguments)
    if found.others or (found.sources and not extend):
        advice = (
            "choose another folder" if found.others else "add --extend to add the new sources, or choose another folder"
        )
        listed = [*found.others, *([found.sources] if found.sources else [])]
        raise InputError(f"{storage.url} holds the output of another job: {', '.join(listed)}; {advice}.")
    for move in plan.moves:
        if any(exists_below(argument, move.before) for argument in plan.arguments if argument.dataset == move.dataset):
            raise InputError(
                f"The dataset {move.dataset!r} of {storage.url} lies in {move.before}, which is still there, and this"
                f" command takes it from {move.now}; name another dataset, as in NAME=SOURCE with --extend, remove the"
                " old place if the corpus has moved, or choose another output folder."
            )


def _source_table(listing: Listing, cut: Cut) -> pa.Table:
    listed: dict[str, Any] = {
        "dataset": listing.datasets,
        "kind": listing.kinds,
        "size": listing.sizes,
        "modified": listing.modified,
    }

    contents = _contents(listing, cut.positions)

    def column(name: str) -> list[Any]:
        if name == "path":
            return [encode_path(listing.paths[i]) for i in cut.positions]
        if name in ("first_byte", "last_byte"):
            end = ("first_byte", "last_byte").index(name)
            return [cut.ranges[place][end] if place in cut.ranges else None for place in range(len(cut.positions))]
        if name == "content":
            return contents
        if name in listed:
            return [listed[name][i] for i in cut.positions]
        values = listing.described.column(FIELD_OF_COLUMN.get(name, name), cut.positions)
        if name in LABELS_OF_SAMPLES:
            return values
        # Plans of version 1 store the row of a container with its first range only; hashes of units depend on it.
        for place, byte_range in cut.ranges.items():
            if byte_range.first > 0:
                values[place] = None
        return values

    # One after the other, so that only one at a time is a list of objects.
    arrays = [pa.array(column(field.name), field.type) for field in SOURCE_SCHEMA]
    return pa.table(arrays, schema=SOURCE_SCHEMA)


def _contents(listing: Listing, positions: Sequence[int]) -> list[int | None]:
    """Identities of the contents of files, each read once; the sources of a file are neighbours."""
    found: list[int | None] = [listing.contents[i] for i in positions]
    names = [(listing.roots[listing.datasets[i]], listing.paths[i]) for i in positions]
    groups = [list(group) for _, group in groupby(range(len(positions)), names.__getitem__)]
    local = [places for places in groups if not any(map(is_url, names[places[0]]))]
    files = ((Path(*names[places[0]]), listing.sizes[positions[places[0]]]) for places in local)
    for places, content in zip(local, contents_of_files(files), strict=True):
        for place in places:
            found[place] = content
    return found


def _unit_table(cut: Cut, first_unit: int) -> pa.Table:
    columns = {
        "unit": list(range(first_unit, first_unit + len(cut.units))),
        "split": [unit.split for unit in cut.units],
        "first_source": [unit.first_source for unit in cut.units],
        "n_sources": [unit.n_sources for unit in cut.units],
        "estimated_seconds": [unit.estimated_seconds for unit in cut.units],
    }
    return pa.table(columns, schema=UNIT_SCHEMA)
