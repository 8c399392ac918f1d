"""The recordings of a unit, from files, tars and Parquet, with the spans to cut from them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from codectok.audio.channels.selection import channel_count
from codectok.audio.sound import MIXED, SoundOptions
from codectok.audio.spans import Span
from codectok.audio.waveform import MAX_CHANNELS
from codectok.errors import AudioError
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.channels import wants_each
from codectok.sources.clips import ClipCounter, readable_clips
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
        channel: number of the channel to read; None for the job's option.
    """

    audio: Callable[[], Path | bytes]
    dataset: str
    name: str
    where: str
    spans: tuple[Span, ...]
    offset: float = 0.0
    may_be_anything: bool = False
    channel: int | None = None


def recordings_of(unit: Unit, output: ClipCounter | None, sound: SoundOptions = MIXED) -> Iterator[RecordingSource]:
    """Yield the recordings of a unit in order, and reject unreadable sources in `output` unless it is None.

    Spans of different channels belong to different recordings; with the option "each", each channel is one.
    """
    for recording in _recordings_of(unit, output):
        yield from _channels_of(recording, sound)


def _recordings_of(unit: Unit, output: ClipCounter | None) -> Iterator[RecordingSource]:
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
        for channel in dict.fromkeys(source.channel for source in sources):
            own = [source for source in sources if source.channel == channel]
            yield RecordingSource(
                audio=own[0].audio,
                dataset=first.dataset,
                name=first.name,
                where=first.where,
                spans=tuple(replace(source.span, key=source.key_path) for source in own),
                may_be_anything=first.kind == "unknown",
                channel=channel,
            )


def _recordings_in(container: Source, output: ClipCounter | None) -> Iterator[RecordingSource]:
    for clip in readable_clips(container, output):
        yield RecordingSource(
            audio=functools.partial(_same, clip.audio),
            dataset=clip.dataset,
            name=clip.source,
            where=clip.name,
            # Keys of samples in a tar are unique within their folder only.
            spans=(replace(clip.span, key=f"{container.dataset}/{container.path}/{clip.id}"),),
            offset=clip.offset,
            channel=clip.span.channel,
        )


def _channels_of(recording: RecordingSource, sound: SoundOptions) -> Iterator[RecordingSource]:
    """Yield `recording`, or one for each channel if they are to be split."""
    if not wants_each(sound, recording.channel):
        yield recording
        return
    try:
        audio = recording.audio()
    except AudioError:
        yield recording  # the error is raised again when the recording is cut
        return
    count = channel_count(audio, recording.where)
    if not 1 < count <= MAX_CHANNELS:
        yield recording
        return
    for channel in range(count):
        yield replace(
            recording,
            audio=functools.partial(_same, audio),
            where=f"{recording.where} (channel {channel})",
            spans=tuple(replace(span, key=f"{span.key}#channel={channel}") for span in recording.spans),
            channel=channel,
        )


def _same(audio: Path | bytes) -> Path | bytes:
    return audio
