"""Encodes clips into rows of the token table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from codectok.audio.files import stream_audio
from codectok.audio.spans import Recording
from codectok.errors import AudioError
from codectok.model.clip_encoder import ClipEncoder
from codectok.sources.clip import Clip

from .table import TokenRow


def encode_clips(encoder: ClipEncoder, clips: Iterable[Clip]) -> Iterator[tuple[Clip, TokenRow | AudioError]]:
    """Yield each clip, in order, with its row, or with the error if it cannot be used; neighbours share packs.

    Files are decoded as their samples are needed, so that memory does not grow with their length.
    """
    readers = ((reader, reader.blocks(encoder.sample_rate)) for reader in map(_Reader, clips))
    for reader, codes in encoder.encode_clips(readers):
        if isinstance(codes, AudioError):
            yield reader.clip, codes
        else:
            yield reader.clip, _row(reader.clip, reader.n_samples, encoder.sample_rate, codes.numpy())


def decoded_blocks(clip: Clip, sample_rate: int) -> Iterator[np.ndarray]:
    """Decode a clip: yield blocks of samples, float32 [n] at `sample_rate` Hz.

    Raises:
        AudioError: the audio cannot be decoded, or ends before a span with text does.
    """
    span, found = clip.span, False
    recording = Recording(stream_audio(clip.audio, sample_rate, clip.name), [span.sample_range(sample_rate)])
    for block in recording.take():
        found = found or len(block) > 0
        yield block
    missing = span.missing_end(recording.n_samples, sample_rate, clip.name)
    if missing is not None and (span.text is not None or not found):
        raise missing  # the text describes the whole span


class _Reader:
    """Decodes a clip and counts its samples."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.n_samples = 0

    def blocks(self, sample_rate: int) -> Iterator[np.ndarray]:
        for block in decoded_blocks(self.clip, sample_rate):
            self.n_samples += len(block)
            yield block


def _row(clip: Clip, n_samples: int, sample_rate: int, codes: np.ndarray) -> TokenRow:
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
        extra=span.extra,
    )
