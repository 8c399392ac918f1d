"""Order of sources, independent of the order of arguments and of the entries in a folder."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from typing import NamedTuple

from codectok.sources.kinds import CONTAINERS
from codectok.sources.source import Source, row_digest, row_of

from .sources import Listing


class SourceName(NamedTuple):
    """Identifies a source: its dataset, its path as bytes, and the digest of its row in a manifest."""

    dataset: str
    path: bytes
    row: str


class _SortKey(NamedTuple):
    dataset: str
    path: bytes
    start: float
    end: float
    id: str
    row: str
    position: int


def encode_path(path: str) -> bytes:
    """A path as bytes; on Linux paths need not be valid text."""
    return path.encode("utf-8", "surrogateescape")


def decode_path(path: bytes) -> str:
    """Inverse of `encode_path`."""
    return path.decode("utf-8", "surrogateescape")


def ordered_sources(listing: Listing) -> Iterator[Source]:
    """Yield the sources of a listing by dataset and path, each once."""
    return (listing.source(position) for position in ordered_positions(listing))


def ordered_positions(listing: Listing, known: Collection[SourceName] = ()) -> array[int]:
    """Positions of the sources of a listing, by dataset, path, start, end and id.

    A source that is listed twice is used once. Rows of a manifest that differ in any field are different sources.

    Args:
        listing: the sources.
        known: sources to leave out.
    """
    keys = []
    for position, (dataset, path) in enumerate(zip(listing.datasets, listing.paths, strict=True)):
        # Containers are read whole, so rows of a manifest do not matter.
        row = None if listing.kinds[position] in CONTAINERS else listing.described.get(position)
        start, end, name = (row.start or 0.0, row.end or 0.0, row.id or "") if row else (0.0, 0.0, "")
        digest = row_digest(row_of(row)) if row else ""
        encoded = encode_path(path)
        if not known or (dataset, encoded, digest) not in known:
            keys.append(_SortKey(dataset, encoded, start, end, name, digest, position))
    keys.sort()
    return array(
        "q",
        (
            key.position
            for key, previous in zip(keys, [None, *keys], strict=False)
            if previous is None or key[:-1] != previous[:-1]
        ),
    )
