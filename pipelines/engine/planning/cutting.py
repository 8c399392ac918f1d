"""Cuts listed sources into units: pure functions of sizes and a policy."""

from __future__ import annotations

import hashlib
import itertools
import math
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from codectok.errors import InputError
from codectok.sources.kinds import CONTAINERS, Kind, estimated_seconds
from codectok.sources.listing.ordering import encode_path
from codectok.sources.listing.sources import Listing
from codectok.storage import is_url

from .unit import SPLITS, Split

DEFAULT_UNIT_SECONDS = 3600.0
# Of a token table: 93.75 codes of 2 bytes, hardly compressible. Only progress and estimates depend on it.
TABLE_BYTES_PER_SECOND = 200.0
# About a minute of audio, or some pages of text; a smaller share of a source may hold no row.
LEAST_SHARE = 1 << 14


@dataclass(frozen=True)
class CuttingPolicy:
    """How sources are cut into units.

    Attributes:
        unit_seconds: estimated audio of a unit.
        validation: share of the files whose units are marked as validation.
        unit_bytes: bytes of the sources of a unit, if they are read row by row; then `unit_seconds` is not used. Each
            unit holds an equal share of every dataset.
        whole_files: with `unit_bytes`, units hold neighbouring files of one dataset instead.
        in_every_unit: with `unit_bytes`, datasets that every unit must have a share of.
        empty_files: with `unit_bytes`, files without a byte belong to units too, so that they become rejects.
    """

    unit_seconds: float = DEFAULT_UNIT_SECONDS
    validation: float = 0.0
    unit_bytes: float | None = None
    whole_files: bool = False
    in_every_unit: Sequence[str] = ()
    empty_files: bool = False


class ByteRange(NamedTuple):
    """Bytes of a file, from `first` to before `last`."""

    first: int
    last: int


class CutUnit(NamedTuple):
    """A unit: `n_sources` consecutive sources of a cut."""

    split: Split
    first_source: int
    n_sources: int
    estimated_seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    """The sources of a listing in the order of their units, as columns.

    Attributes:
        positions: of each source in the listing; a file that is cut into ranges occurs several times.
        ranges: of the sources that are ranges of a file, by their place in `positions`.
        units: in order, without gaps.
    """

    positions: Sequence[int]
    ranges: Mapping[int, ByteRange]
    units: Sequence[CutUnit]


def cut_listing(listing: Listing, positions: Sequence[int], policy: CuttingPolicy) -> Cut:
    """Cut the sources at `positions` of a listing, which are ordered by dataset and path, into units.

    Raises:
        InputError: a size that is needed is unknown, or a dataset of `in_every_unit` is too small.
    """
    if policy.unit_bytes is None:
        return _cut_by_seconds(listing, positions, policy)
    for i in positions:
        if listing.sizes[i] is None:
            raise InputError(f"The size of {listing.paths[i]} is unknown, so it cannot be cut into parts.")
    if policy.whole_files:
        return _cut_between_files(listing, positions, policy.unit_bytes)
    return _cut_into_shares(listing, positions, policy)


def check_unit_seconds(unit_seconds: float) -> None:
    """Refuse a unit size that is not a positive number of seconds."""
    if not 0 < unit_seconds < math.inf:
        raise InputError(f"A unit must have a number of seconds above 0, not {unit_seconds:g}.")


class _CutBuilder:
    """Collects the sources of one unit after the other."""

    def __init__(self) -> None:
        self._positions = array("q")
        self._ranges: dict[int, ByteRange] = {}
        self._units: list[CutUnit] = []
        self._first = 0

    def add(self, position: int, byte_range: ByteRange | None = None) -> None:
        """Add a source to the current unit."""
        if byte_range is not None:
            self._ranges[len(self._positions)] = byte_range
        self._positions.append(position)

    def end_unit(self, split: Split, seconds: float) -> None:
        """End the current unit; one without sources is dropped."""
        count = len(self._positions) - self._first
        if count:
            self._units.append(CutUnit(split, self._first, count, seconds))
            self._first += count

    def build(self) -> Cut:
        return Cut(self._positions, self._ranges, self._units)


def _cut_by_seconds(listing: Listing, positions: Sequence[int], policy: CuttingPolicy) -> Cut:
    """Group neighbours up to `unit_seconds`, training before validation.

    A container, or a range of a large one, is one unit. Spans of a file stay together, since it is decoded once for
    all of them.
    """
    cut = _CutBuilder()
    for split, chosen in zip(SPLITS, _splits(listing, positions, policy.validation), strict=True):
        previous: tuple[str, str, Kind] | None = None
        filled = 0.0
        for i in chosen:
            row = listing.described.get(i)
            start, end = (row.start, row.end) if row else (None, None)
            current = (listing.datasets[i], listing.paths[i], listing.kinds[i])
            ranges: Sequence[ByteRange | None] = _container_ranges(listing, i, policy.unit_seconds) or (None,)
            for byte_range in ranges:
                if byte_range is None:
                    seconds = estimated_seconds(listing.paths[i], listing.sizes[i], start, end)
                else:
                    # The span that a manifest gives to a container counts once, with its first range.
                    span = (start, end) if byte_range.first == 0 else (None, None)
                    seconds = estimated_seconds(listing.paths[i], byte_range.last - byte_range.first, *span)
                if previous is not None and (
                    not CONTAINERS.isdisjoint((current[2], previous[2]))
                    or (filled + seconds > policy.unit_seconds and current[:2] != previous[:2])
                ):
                    cut.end_unit(split, filled)
                    filled = 0.0
                previous = current
                filled += seconds
                cut.add(i, byte_range)
        cut.end_unit(split, filled)
    return cut.build()


def _splits(listing: Listing, positions: Sequence[int], validation: float) -> tuple[Sequence[int], Sequence[int]]:
    """The positions for training, and the positions for validation."""
    if not validation > 0:
        return positions, ()
    train, held_out = array("q"), array("q")
    for i in positions:
        (held_out if _share_of(listing.datasets[i], listing.paths[i]) < validation else train).append(i)
    return train, held_out


def _share_of(dataset: str, path: str) -> float:
    """Number from 0 to 1 from the hash of a file's name, so that a recording always stays in one split."""
    digest = hashlib.sha256(dataset.encode() + b"\0" + encode_path(path)).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _container_ranges(listing: Listing, i: int, unit_seconds: float) -> Sequence[ByteRange]:
    """Ranges of a container that holds the work of several units; none if it stays whole."""
    size = listing.sizes[i]
    if size is None or not _can_be_split(listing, i):
        return ()
    count = round(estimated_seconds(listing.paths[i], size) / unit_seconds)
    if count < 2:
        return ()
    borders = [size * number // count for number in range(count + 1)]
    return [ByteRange(first, last) for first, last in itertools.pairwise(borders)]


def _can_be_split(listing: Listing, i: int) -> bool:
    # Finding a sample of a tar takes reading all headers before it: too many requests for a store. A compressed tar
    # can only be read from its beginning.
    path = listing.paths[i]
    if listing.kinds[i] != "tar":
        return listing.kinds[i] == "parquet"
    return path.lower().endswith(".tar") and not is_url(path) and not is_url(listing.roots[listing.datasets[i]])


def _cut_between_files(listing: Listing, positions: Sequence[int], unit_bytes: float) -> Cut:
    """Group neighbours of one dataset up to `unit_bytes`; a larger file is one unit."""
    cut = _CutBuilder()
    filled, dataset = 0, ""
    for i in positions:
        size = listing.sizes[i] or 0
        if filled + size > unit_bytes or listing.datasets[i] != dataset:
            cut.end_unit(SPLITS[0], filled / TABLE_BYTES_PER_SECOND)
            filled, dataset = 0, listing.datasets[i]
        filled += size
        cut.add(i)
    cut.end_unit(SPLITS[0], filled / TABLE_BYTES_PER_SECOND)
    return cut.build()


def _cut_into_shares(listing: Listing, positions: Sequence[int], policy: CuttingPolicy) -> Cut:
    """Cut files into units of about `unit_bytes`: unit k of n holds the k-th n-th of each dataset.

    Files become ranges of bytes; a row belongs to the range in which it begins (see `codectok.sources.row_ranges`).
    """
    datasets = [
        _Files(listing, list(group)) for _, group in itertools.groupby(positions, key=lambda i: listing.datasets[i])
    ]
    total = sum(files.total for files in datasets)
    n_units = max(1, math.ceil(total / (policy.unit_bytes or math.inf)))
    if datasets:
        sizes = dict.fromkeys(policy.in_every_unit, 0) | {files.name: files.total for files in datasets}
        _refuse_small_shares({name: sizes[name] for name in policy.in_every_unit}, n_units, total)
    cut = _CutBuilder()
    for unit in range(n_units):
        size = 0
        for files in datasets:
            for i, byte_range in files.share(unit, n_units):
                cut.add(i, None if byte_range == (0, listing.sizes[i]) else byte_range)
                size += byte_range.last - byte_range.first
            if unit == 0 and policy.empty_files:
                for i in files.empty:
                    cut.add(i)
        cut.end_unit(SPLITS[0], size / TABLE_BYTES_PER_SECOND)
    return cut.build()


class _Files:
    """The files of a dataset, end to end."""

    def __init__(self, listing: Listing, positions: Sequence[int]) -> None:
        self.name = listing.datasets[positions[0]]
        self._positions = positions
        self._borders = list(itertools.accumulate((listing.sizes[i] or 0 for i in positions), initial=0))
        self.total = self._borders[-1]
        self.empty = [i for i in positions if not listing.sizes[i]]

    def share(self, unit: int, n_units: int) -> Iterator[tuple[int, ByteRange]]:
        """Positions of the files in the share of a unit, with the range of each."""
        first, end = self.total * unit // n_units, self.total * (unit + 1) // n_units
        for place in range(bisect_right(self._borders, first) - 1, len(self._positions)):
            begins, ends = self._borders[place : place + 2]
            if begins >= end:
                return
            start, stop = max(first, begins) - begins, min(end, ends) - begins
            if start < stop:
                yield self._positions[place], ByteRange(start, stop)


def _refuse_small_shares(sizes: dict[str, int], n_units: int, total: int) -> None:
    """Refuse datasets, by their bytes, that are too small to have a row in every unit."""
    if not sizes:
        return
    name = min(sizes, key=lambda name: sizes[name])
    size = sizes[name]
    if not size:
        raise InputError(
            f"The source {name} has no data for the new parts, so its weight cannot be kept; extend every source that"
            " has a weight."
        )
    if n_units > 1 and size < n_units * LEAST_SHARE:
        enough = math.ceil(total / max(1, size // LEAST_SHARE) / 1e6)
        raise InputError(
            f"The source {name} has {size / 1e3:,.1f} kB, too little for {n_units:,} parts; write larger parts"
            f" (--part-megabytes {enough})."
        )
