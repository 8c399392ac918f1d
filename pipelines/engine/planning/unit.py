"""Units of a job: the work that becomes one output file each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from codectok.sources.source import Source

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Unit:
    """The work that becomes one output file.

    Attributes:
        number: from 0 on, in the plan.
        sources: to read.
        split: "train" or "validation".
        crashed: sources that crash their decoder; they are rejected without being opened.
    """

    number: int
    sources: tuple[Source, ...]
    split: Split = "train"
    crashed: tuple[Source, ...] = ()

    def sources_of(self, dataset: str) -> list[Source]:
        """Sources of a dataset, in order."""
        return [source for source in self.sources if source.dataset == dataset]

    def without(self, culprits: Iterable[Source]) -> Unit:
        """This unit with `culprits` crashed; each is one of its sources, or some clips of one."""
        sources, crashed = list(self.sources), list(self.crashed)
        for culprit in culprits:
            place = next(i for i, source in enumerate(sources) if source.holds(culprit))
            sources[place : place + 1] = sources[place].without(culprit)
            crashed.append(culprit)
        return replace(self, sources=tuple(sources), crashed=tuple(crashed))


@dataclass(frozen=True, slots=True)
class UnitOutline:
    """A unit without its sources."""

    number: int
    generation: int
    split: Split
    first_source: int
    n_sources: int
    estimated_seconds: float
