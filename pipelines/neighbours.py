"""Which files of a table lie beside each other: recordings may go on from one to the next."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from .plan import Plan
from .sources import Source


class Neighbours:
    """The files of each dataset in their order, by a plan.

    Files of different generations are no neighbours: what is added later must not change what is there.
    """

    def __init__(self, plan: Plan) -> None:
        self._rows: list[list[Source]] = []
        self._places: dict[tuple[str, str], tuple[int, int]] = {}
        for generation in range(len(plan.header.generations)):
            for _, files in groupby(plan.files(generation), key=lambda source: source.dataset):
                row = list(files)
                for place, source in enumerate(row):
                    self._places[source.dataset, source.path] = (len(self._rows), place)
                self._rows.append(row)

    def before(self, source: Source) -> Iterator[Source]:
        """The files before that of a source, the nearest first."""
        row, place = self._places[source.dataset, source.path]
        return (self._rows[row][i] for i in range(place - 1, -1, -1))

    def after(self, source: Source) -> Iterator[Source]:
        """The files behind that of a source."""
        row, place = self._places[source.dataset, source.path]
        return (self._rows[row][i] for i in range(place + 1, len(self._rows[row])))
