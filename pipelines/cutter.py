"""Cuts one recording into the segments of a shard."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np

from codectok.audio.files import stream_audio
from codectok.audio.quality import Quality
from codectok.audio.segments import Cutter, Segment, segments_of
from codectok.audio.speech import SPEECH_RATE, speech_in
from codectok.audio.stretches import Recording, Stretch, cut_between_parts, join_short
from codectok.errors import AudioError
from codectok.keys import make_key
from codectok.shards import Sample, ShardWriter

from .job import UnitOutput
from .recordings import RecordingSource
from .rejects import Reject
from .shard_options import ShardOptions

# A manifest may round the end of a file so far up.
END_TOLERANCE_SECONDS = 0.1


class RecordingCutter:
    """Cuts one recording."""

    def __init__(
        self, settings: ShardOptions, source: RecordingSource, writer: ShardWriter, output: UnitOutput
    ) -> None:
        self._settings, self._source, self._writer, self._output = settings, source, writer, output
        self._rate = settings.sample_rate
        self._done = 0  # samples of the recording up to here are written or rejected
        self._cutter: Cutter = "fixed" if settings.segmenter == "fixed" else "quiet"

    def run(self) -> None:
        """Write all segments; what cannot be decoded from some point on is rejected from there."""
        settings = self._settings
        pending = deque(self._source.stretches)
        try:
            if settings.segmenter == "vad":
                pending = deque(self._speech())
            stretches = cut_between_parts(pending, settings.max_seconds)
            pending = deque(join_short(stretches, settings.min_seconds, settings.max_seconds))
            starts = [round(stretch.start * self._rate) for stretch in pending]
            with closing(stream_audio(self._source.audio(), self._rate, self._source.where)) as blocks:
                recording = Recording(blocks, self._rate, starts)
                while pending:
                    self._cut(pending[0], recording)
                    pending.popleft()
        except AudioError as error:
            if self._source.may_be_anything and self._done == 0 and error.reason in ("unreadable", "empty"):
                self._output.ignore(self._source.dataset)
                return
            for stretch in pending:
                self._lose(stretch, error)

    def _cut(self, stretch: Stretch, recording: Recording) -> None:
        """Write the segments of a stretch."""
        settings, rate = self._settings, self._rate
        first = self._done = round(stretch.start * rate)
        end = _samples(stretch.end, rate)
        blocks = recording.take(end)
        segments = (
            segments_of(blocks, rate, settings.min_seconds, settings.max_seconds, self._cutter)
            if stretch.text is None
            else _uncut(blocks, round(settings.max_seconds * rate))
        )
        for segment in segments:
            moved = Segment(segment.start + first, segment.samples)
            self._write(moved, stretch)
            self._done = moved.end
        if end is not None and self._done < end - round(END_TOLERANCE_SECONDS * rate):
            raise AudioError(
                f"{self._source.where} ends at {recording.n_samples / rate:.2f} s, before the stretch from"
                f" {stretch.start:g} to {stretch.end:g} s does.",
                "unreadable",
            )
        self._output.read(self._source.dataset, (self._done - first) / rate)

    def _speech(self) -> list[Stretch]:
        """The stretches with text, and the speech in the others; what lies between is rejected."""
        listened = [stretch for stretch in self._source.stretches if stretch.text is None]
        starts = [round(stretch.start * SPEECH_RATE) for stretch in listened]
        speech, silence = [], []
        with closing(stream_audio(self._source.audio(), SPEECH_RATE, self._source.where)) as blocks:
            recording = Recording(blocks, SPEECH_RATE, starts)
            for stretch in listened:
                found, seconds = speech_in(recording.take(_samples(stretch.end, SPEECH_RATE)))
                speech += [replace(stretch, start=stretch.start + a, end=stretch.start + b) for a, b in found]
                borders = [0.0, *itertools.chain(*found), seconds]
                pauses = zip(borders[::2], borders[1::2], strict=True)
                silence += [(stretch.start + a, stretch.start + b) for a, b in pauses]
        for start, end in silence:
            if end > start:
                self._output.read(self._source.dataset, end - start)
                self._reject(AudioError("Nobody speaks.", "filtered"), start, end - start, "segment")
        with_text = [stretch for stretch in self._source.stretches if stretch.text is not None]
        return sorted([*speech, *with_text], key=lambda stretch: stretch.start)

    def _lose(self, stretch: Stretch, error: AudioError) -> None:
        """Reject what is not yet done of a stretch."""
        first = round(stretch.start * self._rate)
        start = max(self._done, first) / self._rate
        seconds = None if stretch.end is None else max(0.0, stretch.end - start)
        self._output.read(self._source.dataset, start - first / self._rate + (seconds or 0.0))
        self._reject(error, start, seconds, "decode")
        self._done = 0  # of the next stretch nothing is

    def _write(self, segment: Segment, stretch: Stretch) -> None:
        """Write a segment, or reject it."""
        settings, source, rate = self._settings, self._source, self._rate
        seconds = len(segment.samples) / rate
        start = segment.start / rate
        try:
            if len(segment.samples) < round(settings.min_seconds * rate):
                raise AudioError(f"{seconds:.2f} s are less than {settings.min_seconds:g} s.", "too_short")
            if len(segment.samples) > round(settings.max_seconds * rate):
                message = f"{seconds:.2f} s with one text are more than {settings.max_seconds:g} s and cannot be cut."
                raise AudioError(message, "too_long")
            quality = Quality.within(settings.quality, segment.samples, rate)
        except AudioError as error:
            self._reject(error, start, seconds, "segment")
            return
        labels = stretch.labels
        description = Sample(
            dataset=source.dataset,
            source=source.name,
            start=source.offset + start,
            duration=seconds,
            sample_rate=rate,
            n_samples=len(segment.samples),
            loudness=quality.loudness,
            bandwidth=quality.bandwidth,
            dnsmos=quality.dnsmos,
            id=stretch.id,
            text=stretch.text,
            language=labels.language,
            speaker=labels.speaker,
            category=labels.category,
        )
        self._writer.write(self._key(stretch, segment.start), segment.samples, description)
        self._output.keep(source.dataset, seconds)
        self._output.observe("duration", math.floor(seconds))
        self._output.observe("bandwidth", quality.bandwidth // 1000)
        if quality.loudness is not None:
            self._output.observe("loudness", math.floor(quality.loudness))

    def _key(self, stretch: Stretch, start: int) -> str:
        path = self._source.key
        if stretch.start or stretch.end is not None:
            # Stretches may overlap, so that a start alone does not tell segments apart.
            path += f"#{stretch.id or f'{stretch.start:g}-{stretch.end or 0.0:g}'}"
        return make_key(self._source.dataset, path, start)

    def _reject(self, error: AudioError, start: float, seconds: float | None, stage: str) -> None:
        source = self._source
        self._output.reject(Reject.of(error, source.dataset, source.name, stage, source.offset + start, seconds))


def _samples(seconds: float | None, rate: int) -> int | None:
    return None if seconds is None else round(seconds * rate)


def _uncut(blocks: Iterator[np.ndarray], longest: int) -> Iterator[Segment]:
    """The whole of a stretch as one segment; of one that is too long anyway no more than its length is true."""
    held, n_samples = [], 0
    for block in blocks:
        if n_samples <= longest:
            held.append(block)
        n_samples += len(block)
    if n_samples > longest:
        yield Segment(0, np.broadcast_to(np.float32(0), n_samples))
    elif n_samples:
        yield Segment(0, np.concatenate(held))
