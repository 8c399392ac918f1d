"""Which files of a table lie beside each other: recordings may go on from one to the next."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from codectok.pipelines.engine.plan import Plan
from codectok.sources.source import Source


class Neighbours:
    """The files of each dataset in their order, by a plan.

    Files of different generations are no neighbours: what is added later must not change what is there.
    """

    def __init__(self, plan: Plan) -> None:
        self._files: list[list[Source]] = []
        self._places: dict[tuple[str, str], tuple[int, int]] = {}
        for generation in range(len(plan.header.generations)):
            for _, files in groupby(plan.files(generation), key=lambda source: source.dataset):
                beside = list(files)
                for place, source in enumerate(beside):
                    self._places[source.dataset, source.path] = (len(self._files), place)
                self._files.append(beside)

    def before(self, source: Source) -> Iterator[Source]:
        """The files before that of a source, the nearest first."""
        number, place = self._places[source.dataset, source.path]
        return (self._files[number][i] for i in range(place - 1, -1, -1))

    def after(self, source: Source) -> Iterator[Source]:
        """The files behind that of a source."""
        number, place = self._places[source.dataset, source.path]
        return (self._files[number][i] for i in range(place + 1, len(self._files[number])))
