"""Sources of rows, whole or cut into ranges of bytes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from codectok.sources.kinds import Kind
from codectok.sources.listing.arguments import parse_arguments
from codectok.sources.listing.ordering import ordered_sources
from codectok.sources.listing.sources import list_sources
from codectok.sources.source import Source

KINDS: tuple[Kind, ...] = ("parquet", "lines")


def source_of(path: Path) -> Source:
    return sources_of(path)[0]


def sources_of(path: Path) -> list[Source]:
    return list(ordered_sources(list_sources(*parse_arguments([str(path)], KINDS), KINDS)))


def cut(source: Source, parts: int) -> list[Source]:
    assert source.size is not None
    borders = [source.size * n // parts for n in range(parts + 1)]
    return [replace(source, first_byte=first, last_byte=last) for first, last in itertools.pairwise(borders)]
