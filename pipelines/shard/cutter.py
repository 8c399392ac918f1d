"""Cuts a recording into the segments of a shard."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np

from codectok.audio.analysis.quality import Quality
from codectok.audio.analysis.speech import SPEECH_RATE, speech_in
from codectok.audio.files import stream_audio
from codectok.audio.notes import DecodingNotes
from codectok.audio.segments import Cutter, Segment, limits_in_samples, segments_of
from codectok.audio.spans import Recording, Span, cut_between_supervisions, join_short, joined_within
from codectok.errors import AudioError
from codectok.keys import make_key
from codectok.phases import ENCODING, READING
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.shards import Sample, ShardWriter
from codectok.sources.channels import extra_with_channel
from codectok.sources.clip import is_not_audio
from codectok.sources.clips import UnusedSound
from codectok.sources.rejects import Reject

from .options import ShardOptions
from .recordings import RecordingSource


class RecordingCutter:
    """Cuts one recording. Every second of its spans that exists is either written or rejected."""

    def __init__(
        self,
        settings: ShardOptions,
        source: RecordingSource,
        writer: ShardWriter,
        output: UnitOutput,
        unused: UnusedSound,
    ) -> None:
        self._settings, self._source, self._writer, self._output = settings, source, writer, output
        self._unused = unused
        self._rate = settings.sample_rate
        self._shortest, self._longest = limits_in_samples(settings.min_seconds, settings.max_seconds, self._rate)
        self._sound, self._notes = settings.sound.for_channel(source.channel), DecodingNotes()
        self._seconds = 0.0  # written or rejected
        self._failed: set[str] = set()  # keys of spans rejected because the file ends early or is damaged
        self._held: Reject | None = None  # the last one of them, which the next piece of its span may continue
        self._cutter: Cutter = "fixed" if settings.segmenter == "fixed" else "quiet"

    def run(self) -> None:
        """Write all segments, and reject spans from where decoding fails."""
        try:
            spans = self._fitted_spans()
            with closing(self._decoded(self._rate, self._notes)) as blocks:
                recording = Recording(blocks, [span.sample_range(self._rate) for span in spans])
                for span in spans:
                    self._cut(span, recording)
        except AudioError as error:  # nothing of the file can be decoded
            if self._source.may_be_anything and is_not_audio(error):
                self._output.ignore(self._source.dataset, self._source.name)
                return
            for span in self._source.spans:
                # A file that cannot be opened may be shorter than a manifest says.
                seconds = None if error.reason == "unreadable" else span.seconds_of(error.seconds)
                self._fail(span, error, span.start, seconds)
        self._reject_held()
        self._output.read(self._source.dataset, self._seconds, inputs=len(self._source.spans))
        self._unused.add_file(self._source.dataset, self._source.name, self._notes)

    def _decoded(self, sample_rate: int, notes: DecodingNotes) -> Generator[np.ndarray, None, None]:
        source, clock = self._source, self._output.clock
        with clock.during(READING):
            audio = source.audio()
        return clock.steps(READING, stream_audio(audio, sample_rate, source.where, notes, self._sound))

    def _fitted_spans(self) -> list[Span]:
        """Return spans cut and joined to fit, in order; with "vad" only the speech in spans without text."""
        spans = self._source.spans
        if self._settings.segmenter != "vad":
            return self._fitted(spans)
        speech = self._speech([span for span in spans if span.text is None])
        with_text = self._fitted(span for span in spans if span.text is not None)
        return sorted([*speech, *with_text], key=lambda span: span.start)

    def _fitted(self, spans: Iterable[Span]) -> list[Span]:
        settings = self._settings
        return join_short(
            cut_between_supervisions(spans, settings.max_seconds), settings.min_seconds, settings.max_seconds
        )

    def _speech(self, spans: list[Span]) -> list[Span]:
        """Return the speech in `spans`, and reject the rest."""
        speech: list[Span] = []
        with closing(self._decoded(SPEECH_RATE, DecodingNotes())) as blocks:
            recording = Recording(blocks, [span.sample_range(SPEECH_RATE) for span in spans])
            detected = [speech_in(recording.take()) for _ in spans]
        if recording.error is not None and recording.n_samples == 0:
            raise recording.error
        for span, (found, seconds) in zip(spans, detected, strict=True):
            # Joining adds short pauses to the segments, so that only the remaining gaps are rejected.
            own = self._fitted(replace(span, start=span.start + a, end=span.start + b) for a, b in found)
            speech += own
            begins = [span.start, *(piece.end for piece in own if piece.end is not None)]
            ends = [*(piece.start for piece in own), span.start + seconds]
            for start, end in zip(begins, ends, strict=True):
                if start < end:
                    self._reject(AudioError("No speech was detected.", "filtered"), start, end - start, "segment")
            missing = recording.missing_end(span, SPEECH_RATE, self._source.where)
            if missing is not None:
                self._fail(span, missing.error, span.start + seconds, missing.seconds)
        return speech

    def _cut(self, span: Span, recording: Recording) -> None:
        """Write the segments of a span; a span with text is written whole or not at all.

        Raises:
            AudioError: the decoder failed before the first sample.
        """
        settings, rate = self._settings, self._rate
        first, _ = span.sample_range(rate)
        done = end = first  # samples up to `done` are written or rejected, up to `end` decoded
        if span.text is None:
            cutter = self._cutter
            for segment in segments_of(recording.take(), rate, settings.min_seconds, settings.max_seconds, cutter):
                end = first + segment.end
                self._write(Segment(first + segment.start, segment.samples), span)
                done = end
        else:
            whole = _uncut(first, recording.take(), self._longest)
            end = whole.end
            whole_span = recording.missing_end(span, rate, self._source.where) is None
            available = span if whole_span else joined_within(span, recording.n_samples, rate)
            if available is not None:
                _, last = available.sample_range(rate)
                segment = Segment(first, whole.samples[: None if last is None else last - first])
                self._write(segment, available)
                done = segment.end
        if recording.error is not None and recording.n_samples == 0:
            raise recording.error
        missing = recording.missing_end(span, rate, self._source.where)
        if missing is not None:
            seconds = None if missing.seconds is None else (end - done) / rate + missing.seconds
            self._fail(span, missing.error, done / rate, seconds)

    def _write(self, segment: Segment, span: Span) -> None:
        """Write a segment, or reject it if it breaks a limit."""
        settings, source, rate = self._settings, self._source, self._rate
        seconds = len(segment.samples) / rate
        start = segment.start / rate
        try:
            if len(segment.samples) < max(1, self._shortest):
                raise AudioError(f"{seconds:.2f} s is shorter than {settings.min_seconds:g} s.", "too_short")
            if len(segment.samples) > self._longest:
                message = f"{seconds:.2f} s with one text is longer than {settings.max_seconds:g} s and cannot be cut."
                raise AudioError(message, "too_long")
            self._sound.refuse_cancelled(self._notes, start, start + seconds, source.where)
            quality = Quality.within(settings.quality, segment.samples, rate)
        except AudioError as error:
            self._reject(error, start, seconds, "segment")
            return
        labels = span.labels
        extra = extra_with_channel(span.extra, source.channel, self._notes)
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
            id=span.id,
            text=span.text,
            language=labels.language,
            speaker=labels.speaker,
            category=labels.category,
            extra=None if extra is None else json.loads(extra),
        )
        with self._output.clock.during(ENCODING):
            self._writer.write(make_key(source.dataset, span.key, segment.start), segment.samples, description)
        self._seconds += seconds
        self._output.keep(source.dataset, seconds, span=span)
        self._output.observe("duration", math.floor(seconds))
        self._output.observe("bandwidth", quality.bandwidth // 1000)
        if quality.loudness is not None:
            self._output.observe("loudness", math.floor(quality.loudness))

    def _fail(self, span: Span, error: AudioError, start: float, seconds: float | None) -> None:
        """Reject the missing end of a span; that of several pieces of one span is one reject."""
        again = span.key in self._failed
        if again and seconds == 0.0:
            return
        self._failed.add(span.key)
        reject, held = self._made(error, start, seconds, "decode"), self._held
        if again and held is not None and held.duration is not None and held.message == reject.message:
            held_end = held.start + held.duration
            if abs(held_end - reject.start) < 1 / self._rate:
                self._held = replace(held, duration=None if seconds is None else held.duration + seconds)
                return
        self._reject_held()
        self._held = reject

    def _reject_held(self) -> None:
        if self._held is not None:
            self._seconds += self._held.duration or 0.0
            self._output.reject(self._held)
        self._held = None

    def _reject(self, error: AudioError, start: float, seconds: float, stage: str) -> None:
        self._seconds += seconds
        self._output.reject(self._made(error, start, seconds, stage))

    def _made(self, error: AudioError, start: float, seconds: float | None, stage: str) -> Reject:
        source = self._source
        return Reject.of(error, source.dataset, source.name, stage, source.offset + start, seconds)


def _uncut(first: int, blocks: Iterator[np.ndarray], longest: int) -> Segment:
    """Return `blocks` as one segment from sample `first` on; one longer than `longest` is filled with zeros."""
    held, n_samples = [np.zeros(0, np.float32)], 0
    for block in blocks:
        if n_samples <= longest:
            held.append(block)
        n_samples += len(block)
    too_long = n_samples > longest
    return Segment(first, np.broadcast_to(np.float32(0), n_samples) if too_long else np.concatenate(held))
