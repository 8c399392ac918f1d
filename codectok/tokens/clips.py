"""Encodes clips into rows of the token table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from codectok.audio.files import stream_audio
from codectok.audio.notes import DecodingNotes
from codectok.audio.sound import MIXED, SoundOptions
from codectok.audio.spans import Recording
from codectok.codecs.encoders import ClipEncoder
from codectok.errors import AudioError
from codectok.extras import with_extra
from codectok.phases import ENCODING, READING, PhaseClock
from codectok.sources.channels import clips_of_channels, extra_with_channel
from codectok.sources.clip import Clip

from .table import TokenRow

OnDecoded = Callable[[Clip, DecodingNotes], None]
"""Receives the notes of each clip that was decoded."""


@dataclass(frozen=True)
class DamagedRest:
    """The end of a clip without text, from the damage on; the audio before it is used.

    Attributes:
        error: the damage; its `seconds` are the duration of this end.
        start: in the recording, in seconds.
    """

    error: AudioError
    start: float


class ClipReader:
    """Decodes a clip, up to damage if it has no text.

    Attributes:
        clip: to decode.
        notes: on the file, complete when all blocks are read.
        n_samples: number of samples so far.
        rest: what damage cut off; None so far.

    Args:
        clip: to decode; the channel of its span, if it has one, goes before that of `sound`.
        sample_rate: of the samples, in Hz.
        sound: how channels and scales of files become mono samples.
    """

    def __init__(self, clip: Clip, sample_rate: int, sound: SoundOptions = MIXED) -> None:
        self.clip, self.notes = clip, DecodingNotes()
        self.n_samples = 0
        self.rest: DamagedRest | None = None
        self._sample_rate, self._sound = sample_rate, sound

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield blocks of samples, float32 [n].

        Raises:
            AudioError: no sample can be decoded, a span with text is not whole, or its channels cancel; with the
                duration of the clip.
        """
        clip, rate, span = self.clip, self._sample_rate, self.clip.span
        decoded_file = stream_audio(clip.audio, rate, clip.name, self.notes, self._sound.for_channel(span.channel))
        recording = Recording(decoded_file, [span.sample_range(rate)])
        for block in recording.take():
            self.n_samples += len(block)
            yield block
        self._sound.refuse_cancelled(self.notes, span.start, span.start + self.n_samples / rate, clip.name)
        missing = recording.missing_end(span, rate, clip.name)
        if missing is None:
            return
        decoded, message, reason = self.n_samples / rate, str(missing.error), missing.error.reason
        if span.text is not None or self.n_samples == 0:  # the text describes the whole span
            raise AudioError(message, reason, None if missing.seconds is None else decoded + missing.seconds)
        if recording.error is not None:
            self.rest = DamagedRest(AudioError(message, reason, missing.seconds), clip.start + decoded)

    def release(self) -> None:
        """Drop the bytes of the file, since clips wait for the codes of others; call this when all blocks are read."""
        if isinstance(self.clip.audio, bytes):
            self.clip = replace(self.clip, audio=b"")


def encode_clips(
    encoder: ClipEncoder,
    clips: Iterable[Clip],
    sound: SoundOptions = MIXED,
    on_decoded: OnDecoded | None = None,
    keep_damaged: bool = False,
    clock: PhaseClock | None = None,
) -> Iterator[tuple[Clip, TokenRow | AudioError | DamagedRest]]:
    """Yield each clip, in order, with its row, or with the error if it cannot be used; neighbours share packs.

    Files are decoded as their samples are needed, so that memory does not grow with their length.

    Args:
        encoder: encodes the samples.
        clips: to encode.
        sound: how channels and scales become mono samples; with the channel "each", those of a file are clips.
        on_decoded: receives the notes of each clip.
        keep_damaged: a clip without text becomes a row up to damage, followed by the rest; else only an error.
        clock: receives the times of reading and encoding; None to measure none.
    """
    clock = clock or PhaseClock()

    def blocks(reader: ClipReader) -> Iterator[np.ndarray]:
        try:
            yield from reader.blocks()
        finally:
            reader.release()
        if reader.rest is not None and not keep_damaged:
            raise reader.rest.error

    found = clock.steps(READING, clips_of_channels(clips, sound))
    readers = (ClipReader(clip, encoder.sample_rate, sound) for clip in found)
    samples = ((reader, clock.steps(READING, blocks(reader))) for reader in readers)
    for reader, codes in clock.steps(ENCODING, encoder.encode_clips(samples)):
        if on_decoded is not None:
            on_decoded(reader.clip, reader.notes)
        if isinstance(codes, AudioError):
            yield reader.clip, codes
            continue
        yield reader.clip, _row(reader, encoder.sample_rate, codes.numpy())
        if reader.rest is not None:
            yield reader.clip, reader.rest


def _row(reader: ClipReader, sample_rate: int, codes: np.ndarray) -> TokenRow:
    clip, n_samples = reader.clip, reader.n_samples
    span = clip.span
    extra = extra_with_channel(span.extra, span.channel, reader.notes)
    if span.id is not None:  # given by the corpus
        extra = with_extra(extra, json.dumps({"id": span.id}, ensure_ascii=False))
    return TokenRow(
        id=clip.id,
        source=clip.source,
        dataset=clip.dataset,
        start=clip.start,
        duration=n_samples / sample_rate,
        n_samples=n_samples,
        codes=codes,
        text=span.text,
        language=span.labels.language,
        speaker=span.labels.speaker,
        category=span.labels.category,
        extra=extra,
    )
