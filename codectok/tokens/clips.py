"""From clips of audio to rows of the token table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codectok.audio.files import stream_audio
from codectok.audio.spans import Recording, Span
from codectok.errors import AudioError
from codectok.model.clip_encoder import ClipEncoder
from codectok.names import printable
from codectok.shards import Sample

from .table import TokenRow


@dataclass(frozen=True)
class Clip:
    """A clip to encode: a file or its bytes, where it comes from, and what its shard says of it.

    With a `span` the clip is no more than that part of the audio, and the span says what is known of it.
    """

    id: str
    audio: Path | bytes
    dataset: str
    source: str
    sample: Sample | None = None
    span: Span | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return printable(self.audio) if isinstance(self.audio, Path) else f"{self.source} ({self.id})"


def encode_clips(encoder: ClipEncoder, clips: Iterable[Clip]) -> Iterator[tuple[Clip, TokenRow | AudioError]]:
    """Encode `clips`, neighbours together, in their order; a clip that cannot be decoded or used gives its error.

    Files are decoded as their samples are needed: memory does not grow with their length.
    """
    readers = ((reader, reader.blocks(encoder.sample_rate)) for reader in map(_Reader, clips))
    for reader, codes in encoder.encode_clips(readers):
        if isinstance(codes, AudioError):
            yield reader.clip, codes
        else:
            yield reader.clip, _row(reader.clip, reader.n_samples, encoder.sample_rate, codes.numpy())


def decoded_blocks(clip: Clip, sample_rate: int) -> Iterator[np.ndarray]:
    """The samples of a clip, float32 [n] at `sample_rate` Hz in blocks; `AudioError` where they cannot be used."""
    span, found = clip.span or Span(), False
    recording = Recording(stream_audio(clip.audio, sample_rate, clip.name), [span.sample_range(sample_rate)])
    for block in recording.take():
        found = found or len(block) > 0
        yield block
    missing = span.missing_end(recording.n_samples, sample_rate, clip.name)
    if missing is not None and (span.text is not None or not found):
        raise missing  # words are for all of it


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
    sample, span = clip.sample, clip.span
    labels = span.labels if span else sample
    return TokenRow(
        id=clip.id,
        source=clip.source,
        dataset=clip.dataset,
        start=span.start if span else sample.start if sample else 0.0,
        duration=n_samples / sample_rate,
        n_samples=n_samples,
        codes=codes,
        text=span.text if span else sample.text if sample else None,
        language=labels.language if labels else None,
        speaker=labels.speaker if labels else None,
        category=labels.category if labels else None,
    )
