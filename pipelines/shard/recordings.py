"""The recordings of a unit, from files, tars and Parquet, with the spans to cut from them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from codectok.audio.spans import Labels, Span
from codectok.pipelines.engine.plan import Unit
from codectok.pipelines.engine.unit_output import UnitOutput
from codectok.sources.clips import clips_of
from codectok.sources.rejects import Reject
from codectok.sources.source import CONTAINERS, Source


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
            spans=tuple(replace(source.span or Span(), key=source.key_path) for source in sources),
            may_be_anything=first.kind == "unknown",
        )


def _recordings_in(container: Source, output: UnitOutput | None) -> Iterator[RecordingSource]:
    for clip in clips_of(container):
        if clip is None or isinstance(clip, Reject):
            if output is not None:
                _note(container, clip, output)
            continue
        sample, span = clip.sample, clip.span or Span()
        if sample is not None:
            labels = Labels(sample.language, sample.speaker, sample.category)
            span = Span(id=sample.id, text=sample.text, labels=labels)
        yield RecordingSource(
            audio=functools.partial(_same, clip.audio),
            dataset=clip.dataset,
            name=clip.source,
            where=clip.name,
            # Keys of samples in a tar are unique within their folder only.
            spans=(replace(span, key=f"{container.dataset}/{container.path}/{clip.id}"),),
            offset=sample.start if sample else 0.0,
        )


def _note(container: Source, problem: Reject | None, output: UnitOutput) -> None:
    if problem is None:
        output.ignore(container.dataset)
    else:
        output.read(problem.dataset)
        output.reject(problem)


def _same(audio: Path | bytes) -> Path | bytes:
    return audio
