"""The recordings of a unit, from files, tars and Parquet, with the spans to cut from them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from codectok.audio.spans import Span
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.plan import Unit
from codectok.sources.clips import readable_clips
from codectok.sources.kinds import CONTAINERS
from codectok.sources.source import Source


@dataclass(frozen=True)
class RecordingSource:
    """A recording and the spans to cut from it.

    Attributes:
        audio: returns the path of the file or its bytes.
        dataset: name of the dataset.
        name: name in tables.
        where: name in messages.
        spans: in the order of their starts.
        offset: start of this recording in the original one, in seconds.
        may_be_anything: True if neither suffix nor manifest says that the file is audio.
    """

    audio: Callable[[], Path | bytes]
    dataset: str
    name: str
    where: str
    spans: tuple[Span, ...]
    offset: float = 0.0
    may_be_anything: bool = False


def recordings_of(unit: Unit, output: UnitOutput | None) -> Iterator[RecordingSource]:
    """Yield the recordings of a unit in order, and reject unreadable sources in `output` unless it is None."""
    # Spans of a file are neighbours in the plan, so that the file is decoded once.
    for _, group in itertools.groupby(unit.sources, key=lambda source: (source.dataset, source.path)):
        sources = []
        for source in group:
            if source.problem is None:
                sources.append(source)
            else:
                list(readable_clips(source, output))  # rejects the row
        if not sources:
            continue
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
            # Keys of samples in a tar are unique within their folder only.
            spans=(replace(clip.span, key=f"{container.dataset}/{container.path}/{clip.id}"),),
            offset=clip.offset,
        )


def _same(audio: Path | bytes) -> Path | bytes:
    return audio
