"""Encodes clips into rows of the token table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from codectok.audio.files import stream_audio
from codectok.audio.notes import DecodingNotes
from codectok.audio.sound import MIXED, SoundOptions
from codectok.audio.spans import Recording
from codectok.errors import AudioError
from codectok.model.clip_encoder import ClipEncoder
from codectok.sources.channels import clips_of_channels, extra_with_channel
from codectok.sources.clip import Clip

from .table import TokenRow

OnDecoded = Callable[[Clip, DecodingNotes], None]
"""Receives the notes of each clip that was decoded."""


def encode_clips(
    encoder: ClipEncoder, clips: Iterable[Clip], sound: SoundOptions = MIXED, on_decoded: OnDecoded | None = None
) -> Iterator[tuple[Clip, TokenRow | AudioError]]:
    """Yield each clip, in order, with its row, or with the error if it cannot be used; neighbours share packs.

    Files are decoded as their samples are needed, so that memory does not grow with their length. With
    `sound.channel` "each", the channels of a file are clips by themselves.
    """
    several = clips_of_channels(clips, sound)
    readers = ((reader, reader.blocks(encoder.sample_rate)) for reader in (_Reader(clip, sound) for clip in several))
    for reader, codes in encoder.encode_clips(readers):
        if on_decoded is not None:
            on_decoded(reader.clip, reader.notes)
        if isinstance(codes, AudioError):
            yield reader.clip, codes
        else:
            yield reader.clip, _row(reader, encoder.sample_rate, codes.numpy())


def decoded_blocks(
    clip: Clip, sample_rate: int, sound: SoundOptions = MIXED, notes: DecodingNotes | None = None
) -> Iterator[np.ndarray]:
    """Decode a clip: yield blocks of samples, float32 [n] at `sample_rate` Hz.

    The channel of the clip's span, if it has one, goes before that of `sound`.

    Raises:
        AudioError: the audio cannot be decoded, ends before a span with text does, or has channels that cancel.
    """
    span, length = clip.span, 0
    notes = notes or DecodingNotes()
    blocks = stream_audio(clip.audio, sample_rate, clip.name, notes, sound.for_channel(span.channel))
    recording = Recording(blocks, [span.sample_range(sample_rate)])
    for block in recording.take():
        length += len(block)
        yield block
    found = length > 0
    sound.refuse_cancelled(notes, span.start, span.start + length / sample_rate, clip.name)
    missing = span.missing_end(recording.n_samples, sample_rate, clip.name)
    if missing is not None and (span.text is not None or not found):
        raise missing  # the text describes the whole span


class _Reader:
    """Decodes a clip and counts its samples."""

    def __init__(self, clip: Clip, sound: SoundOptions) -> None:
        self.clip, self.notes = clip, DecodingNotes()
        self.n_samples = 0
        self._sound = sound

    def blocks(self, sample_rate: int) -> Iterator[np.ndarray]:
        for block in decoded_blocks(self.clip, sample_rate, self._sound, self.notes):
            self.n_samples += len(block)
            yield block


def _row(reader: _Reader, sample_rate: int, codes: np.ndarray) -> TokenRow:
    clip, n_samples = reader.clip, reader.n_samples
    span = clip.span
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
        extra=extra_with_channel(span.extra, span.channel, reader.notes),
    )
