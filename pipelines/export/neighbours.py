"""Order of a table's files, for recordings that continue from one file to the next."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from codectok.pipelines.engine.planning.plan import Plan
from codectok.sources.source import Source


class Neighbours:
    """Neighbouring files of each dataset, in the order of a plan.

    Files of different generations are not neighbours, so that files added later do not change finished output.
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
        """Iterate over the files before a source, nearest first."""
        number, place = self._places[source.dataset, source.path]
        return (self._files[number][i] for i in range(place - 1, -1, -1))

    def after(self, source: Source) -> Iterator[Source]:
        """Iterate over the files behind a source, nearest first."""
        number, place = self._places[source.dataset, source.path]
        return (self._files[number][i] for i in range(place + 1, len(self._files[number])))
