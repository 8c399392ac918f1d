"""Cuts sources that are read row by row into units: each has an equal share of every dataset."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

import pyarrow as pa

from codectok.errors import InputError

from .listing import Listing
from .plan import UNIT_SCHEMA

# Of a token table: 93.75 codes of 2 bytes, hardly compressible. Only progress and estimates depend on it.
TABLE_BYTES_PER_SECOND = 200.0


def cut_into_shares(
    listing: Listing, positions: Sequence[int], part_bytes: float, first_unit: int
) -> tuple[list[int], pa.Table]:
    """Cut the files at `positions`, ordered by dataset and path, into units of about `part_bytes`.

    Files become ranges of bytes, which are added to `listing`; a row belongs to the range in which it begins (see
    `codectok.pipelines.rows`). Unit k of n holds the k-th n-th of each dataset, so that a unit is a sample of the
    whole mixture.

    Returns:
        Positions of the ranges in the order of units, and the units.

    Raises:
        InputError: a file of which nobody knows the size.
    """
    for i in positions:
        if listing.sizes[i] is None:
            raise InputError(f"The size of {listing.paths[i]} is not known, so that it cannot be cut into parts.")
    datasets = [list(group) for _, group in groupby(positions, key=lambda i: listing.datasets[i])]
    n_units = max(1, math.ceil(sum(listing.sizes[i] or 0 for i in positions) / part_bytes))
    order: list[int] = []
    rows: list[tuple[int, str, int, int, float]] = []
    for unit in range(n_units):
        first = len(order)
        size = 0
        for files in datasets:
            for i, start, end in _share(listing, files, unit, n_units):
                order.append(_position_of_range(listing, i, start, end))
                size += end - start
        if len(order) > first:
            number = first_unit + len(rows)
            rows.append((number, "train", first, len(order) - first, size / TABLE_BYTES_PER_SECOND))
    return order, pa.Table.from_pylist([dict(zip(UNIT_SCHEMA.names, row, strict=True)) for row in rows], UNIT_SCHEMA)


def _share(listing: Listing, files: Sequence[int], unit: int, n_units: int) -> Iterator[tuple[int, int, int]]:
    """The ranges of `files` in the share of a unit: position, first byte, end."""
    total = sum(listing.sizes[i] or 0 for i in files)
    first, end = total * unit // n_units, total * (unit + 1) // n_units
    begins = 0
    for i in files:
        size = listing.sizes[i] or 0
        start, stop = max(first - begins, 0), min(end - begins, size)
        if start < stop:
            yield i, start, stop
        begins += size


def _position_of_range(listing: Listing, i: int, start: int, end: int) -> int:
    size = listing.sizes[i]
    if (start, end) == (0, size):
        return i
    listing.add(listing.datasets[i], listing.paths[i], listing.kinds[i], size, listing.modified[i])
    listing.ranges[len(listing.paths) - 1] = (start, end)
    return len(listing.paths) - 1
