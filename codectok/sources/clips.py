"""The clips of a source: an audio file or a span of it, the samples of a tar, or the rows of Parquet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from math import isfinite
from typing import Protocol

from codectok.audio.notes import DecodingNotes
from codectok.audio.sound import SoundOptions
from codectok.errors import AudioError
from codectok.keys import make_key
from codectok.parquet_damage import PARQUET_DAMAGE
from codectok.reading import reading
from codectok.sources.corpora.described import described_clips
from codectok.sources.corpora.folder_labels import with_labels_of
from codectok.sources.parquet.clips import clips_of_parquet
from codectok.sources.tars.clips import clips_of_tar

from .checks import checked
from .clip import Clip
from .kinds import CONTAINERS
from .rejects import Reject
from .source import Source
from .unused import Unused, unused_sound

DAMAGE = PARQUET_DAMAGE


class ClipCounter(Protocol):
    """Counts inputs without output; the `UnitOutput` of a job is one."""

    def read(self, dataset: str, seconds: float | None = None) -> None:
        """Count an input, and its duration if it is known."""

    def reject(self, reject: Reject) -> None:
        """Record why an input has no output."""

    def ignore(self, dataset: str, name: str) -> None:
        """Count the file `name`, which holds no audio."""

    def leave_unused(self, dataset: str, unused: Unused) -> None:
        """Count a part of an input that is not used; a part of the kind "ignored_files" is a file without audio."""


def clips_of(source: Source) -> Iterator[Clip | Reject | Unused]:
    """Yield the clips of `source` in order, a reject for each that cannot be read, and parts that are not used."""
    clips = itertools.islice(_clips_in(source), source.first_clip, source.last_clip)
    while True:
        try:
            with reading(source.where, DAMAGE):
                found = next(clips, None)
        except AudioError as error:
            yield Reject.of(error, source.dataset, source.name, "read")
            return
        if found is None:
            return
        yield _with_labels(source, found) if isinstance(found, Clip) else found


def _with_labels(source: Source, clip: Clip) -> Clip | Reject:
    """Add the labels of the source; a clip that cannot be written becomes a reject."""
    try:
        with reading(source.where):
            return checked(with_labels_of(source, clip) if source.kind in CONTAINERS else clip)
    except AudioError as error:
        return Reject.of(error, clip.dataset, clip.source, "read", clip.start if isfinite(clip.start) else 0.0)


def _clips_in(container: Source) -> Iterator[Clip | Reject | Unused]:
    if container.kind not in CONTAINERS:
        return (clip_of(one) for one in [container])
    if container.companion is not None:
        return described_clips(container)
    return clips_of_tar(container) if container.kind == "tar" else clips_of_parquet(container)


def readable_clips(source: Source, counter: ClipCounter | None = None) -> Iterator[Clip]:
    """Yield the clips of `source` in order; `counter` receives unreadable ones."""
    for clip in clips_of(source):
        if isinstance(clip, Clip):
            yield clip
        elif counter is None:
            continue
        elif isinstance(clip, Unused):
            counter.leave_unused(source.dataset, clip)
        else:
            counter.read(clip.dataset)
            counter.reject(clip)


def count_undecodable(clip: Clip, error: AudioError, counter: ClipCounter) -> None:
    """Count a clip that could not be decoded: ignored if it is not audio, else rejected with its duration if known."""
    if clip.is_not_audio(error):
        counter.ignore(clip.dataset, clip.source)
    else:
        counter.read(clip.dataset, error.seconds)
        counter.reject(Reject.of(error, clip.dataset, clip.source, "decode", clip.start, error.seconds))


class UnusedSound:
    """Counts the parts of audio files that are not used, once for each file whose clips follow one another."""

    def __init__(self, counter: ClipCounter, sound: SoundOptions) -> None:
        self._counter, self._sound = counter, sound
        self._file: tuple[str, str] | None = None
        self._counted: set[tuple[str, str]] = set()

    def add(self, clip: Clip, notes: DecodingNotes) -> None:
        """Count the parts that decoding `clip` has noted."""
        self.add_file(clip.dataset, clip.source, notes)

    def add_file(self, dataset: str, source: str, notes: DecodingNotes) -> None:
        """Count the parts that decoding a file, or a channel of it, has noted."""
        if (dataset, source) != self._file:
            self._file, self._counted = (dataset, source), set()
        for unused in unused_sound(notes, self._sound, source):
            if (unused.kind, unused.name) not in self._counted:
                self._counted.add((unused.kind, unused.name))
                self._counter.leave_unused(dataset, unused)


def clip_of(source: Source) -> Clip:
    """The clip of an audio file, or of a span of one.

    Raises:
        AudioError: the file has changed since it was listed, or cannot be fetched.
    """
    key = make_key(source.dataset, source.key_path)
    maybe_audio = source.kind == "unknown"
    return Clip(key, source.audio(), source.dataset, source.name, source.span, maybe_audio=maybe_audio)
