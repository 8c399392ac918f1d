"""Checks before a job starts that the audio column of Parquet files can be chosen."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow.parquet as pq

from codectok.errors import AudioError, InputError
from codectok.parquet_damage import PARQUET_DAMAGE
from codectok.sources.listing.sources import Listing
from codectok.sources.opening import open_source
from codectok.sources.source import Source

from .choice import check_schema

CHECKED_FILES = 8


def check_audio_columns(listing: Listing, audio_column: str | None) -> None:
    """Read the schema of some Parquet files of each dataset that consists of them.

    Files that cannot be read are left to the job, and so are files that differ from others of their dataset.

    Raises:
        InputError: the choice fails for each of these files; the message names the columns.
    """
    positions: dict[str, list[int]] = {}
    others = set()
    for position, (dataset, kind) in enumerate(zip(listing.datasets, listing.kinds, strict=True)):
        if kind == "parquet":
            positions.setdefault(dataset, []).append(position)
        else:
            others.add(dataset)
    for dataset in sorted(positions.keys() - others):
        ordered = sorted(positions[dataset], key=lambda position: listing.paths[position])
        step = -(-len(ordered) // CHECKED_FILES)
        problems = _problems([listing.source(position) for position in ordered[::step]], audio_column)
        if problems and None not in problems:
            raise InputError(str(problems[0]))


def _problems(sources: Sequence[Source], audio_column: str | None) -> list[AudioError | None]:
    """Return the error of each source that can be read; None for one without."""
    found: list[AudioError | None] = []
    for source in sources:
        try:
            with open_source(source) as opened:
                schema = pq.read_schema(opened)
        except (AudioError, OSError, *PARQUET_DAMAGE):
            continue  # the unit rejects it
        try:
            check_schema(schema, audio_column, source.where)
            found.append(None)
        except AudioError as error:
            found.append(error)
    return found
