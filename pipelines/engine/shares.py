"""Cuts sources that are read row by row into units: each has an equal share of every dataset."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby

import pyarrow as pa

from codectok.errors import InputError
from codectok.sources.listing import Listing

from .plan import UNIT_SCHEMA

# Of a token table: 93.75 codes of 2 bytes, hardly compressible. Only progress and estimates depend on it.
TABLE_BYTES_PER_SECOND = 200.0
# About a minute of audio, or some pages of text: in less of a source no row may begin.
LEAST_SHARE = 1 << 14


def cut_into_shares(
    listing: Listing,
    positions: Sequence[int],
    part_bytes: float,
    first_unit: int,
    in_every_unit: Sequence[str] = (),
) -> tuple[list[int], pa.Table]:
    """Cut the files at `positions`, ordered by dataset and path, into units of about `part_bytes`.

    Files become ranges of bytes, which are added to `listing`; a row belongs to the range in which it begins (see
    `codectok.sources.rows`). Unit k of n holds the k-th n-th of each dataset, so that a unit is a sample of the
    whole mixture.

    Args:
        listing: has the files.
        positions: of those to cut.
        part_bytes: of a unit.
        first_unit: its number.
        in_every_unit: datasets of which every unit must have something.

    Returns:
        Positions of the ranges in the order of units, and the units.

    Raises:
        InputError: a file of which nobody knows the size, or too little of a dataset for every unit.
    """
    for i in positions:
        if listing.sizes[i] is None:
            raise InputError(f"The size of {listing.paths[i]} is not known, so that it cannot be cut into parts.")
    datasets = [_Files(listing, list(group)) for _, group in groupby(positions, key=lambda i: listing.datasets[i])]
    total = sum(files.total for files in datasets)
    n_units = max(1, math.ceil(total / part_bytes))
    if datasets:
        sizes = dict.fromkeys(in_every_unit, 0) | {files.name: files.total for files in datasets}
        _refuse_small_shares({name: sizes[name] for name in in_every_unit}, n_units, total)
    order: list[int] = []
    rows: list[tuple[int, str, int, int, float]] = []
    for unit in range(n_units):
        first = len(order)
        size = 0
        for files in datasets:
            for i, start, end in files.share(unit, n_units):
                order.append(_position_of_range(listing, i, start, end))
                size += end - start
        if len(order) > first:
            number = first_unit + len(rows)
            rows.append((number, "train", first, len(order) - first, size / TABLE_BYTES_PER_SECOND))
    return order, pa.Table.from_pylist([dict(zip(UNIT_SCHEMA.names, row, strict=True)) for row in rows], UNIT_SCHEMA)


class _Files:
    """The files of a dataset, one behind the other."""

    def __init__(self, listing: Listing, positions: Sequence[int]) -> None:
        self.name = listing.datasets[positions[0]]
        self._positions = positions
        self._borders = list(accumulate((listing.sizes[i] or 0 for i in positions), initial=0))
        self.total = self._borders[-1]

    def share(self, unit: int, n_units: int) -> Iterator[tuple[int, int, int]]:
        """The ranges in the share of a unit: position of the file, first byte, end."""
        first, end = self.total * unit // n_units, self.total * (unit + 1) // n_units
        for place in range(bisect_right(self._borders, first) - 1, len(self._positions)):
            begins, ends = self._borders[place : place + 2]
            if begins >= end:
                return
            start, stop = max(first, begins) - begins, min(end, ends) - begins
            if start < stop:
                yield self._positions[place], start, stop


def _refuse_small_shares(sizes: dict[str, int], n_units: int, total: int) -> None:
    """Refuse datasets, of so many bytes each, of which units would have no row."""
    if not sizes:
        return
    name = min(sizes, key=lambda name: sizes[name])
    size = sizes[name]
    if not size:
        raise InputError(
            f"The source {name} has nothing for new parts, so that its weight cannot hold there; add to every source"
            " that has a weight."
        )
    if n_units > 1 and size < n_units * LEAST_SHARE:
        enough = math.ceil(total / max(1, size // LEAST_SHARE) / 1e6)
        raise InputError(
            f"The source {name} has {size / 1e3:,.1f} kB, too little for a share in each of {n_units:,} parts, so that"
            f" its weight cannot hold there; write larger parts (--part-megabytes {enough})."
        )


def _position_of_range(listing: Listing, i: int, start: int, end: int) -> int:
    size = listing.sizes[i]
    if (start, end) == (0, size):
        return i
    listing.add(listing.datasets[i], listing.paths[i], listing.kinds[i], size, listing.modified[i])
    listing.ranges[len(listing.paths) - 1] = (start, end)
    return len(listing.paths) - 1
