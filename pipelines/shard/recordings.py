"""The recordings of a unit: files with the spans of them that are wanted, and what lies in tars and Parquet."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from codectok.audio.spans import Span
from codectok.pipelines.engine.job import UnitOutput
from codectok.pipelines.engine.plan import Unit
from codectok.sources.clips import readable_clips
from codectok.sources.kinds import CONTAINERS
from codectok.sources.source import Source


@dataclass(frozen=True)
class RecordingSource:
    """A recording, and the spans of it that are wanted.

    Attributes:
        audio: gives the file or its bytes.
        name: in tables; `where` in messages.
        spans: in the order of their starts.
        offset: seconds of the original recording before this one.
        may_be_anything: nobody has said that it is audio.
    """

    audio: Callable[[], Path | bytes]
    dataset: str
    name: str
    where: str
    spans: tuple[Span, ...]
    offset: float = 0.0
    may_be_anything: bool = False


def recordings_of(unit: Unit, output: UnitOutput | None) -> Iterator[RecordingSource]:
    """Everything to decode in a unit, in order; what cannot even be read is rejected in `output` if there is one."""
    # A file is decoded once for all its spans, which are neighbours in the plan.
    for _, group in itertools.groupby(unit.sources, key=lambda source: (source.dataset, source.path)):
        sources = list(group)
        first = sources[0]
        if first.kind in CONTAINERS:
            for source in sources:
                yield from _recordings_in(source, output)
            continue
        yield RecordingSource(
            audio=first.audio,
            dataset=first.dataset,
            name=first.name,
            where=first.where,
            spans=tuple(replace(source.span, key=source.key_path) for source in sources),
            may_be_anything=first.kind == "unknown",
        )


def _recordings_in(container: Source, output: UnitOutput | None) -> Iterator[RecordingSource]:
    for clip in readable_clips(container, output):
        yield RecordingSource(
            audio=functools.partial(_same, clip.audio),
            dataset=clip.dataset,
            name=clip.source,
            where=clip.name,
            # Keys that other jobs have given are unique in their folder at most.
            spans=(replace(clip.span, key=f"{container.dataset}/{container.path}/{clip.id}"),),
            offset=clip.offset,
        )


def _same(audio: Path | bytes) -> Path | bytes:
    return audio
