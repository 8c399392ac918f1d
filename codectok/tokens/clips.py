"""From a clip of audio to a row of the token table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..audio.files import read_audio
from ..codec import Codec
from ..names import printable
from ..shards import Sample
from .table import TokenRow


@dataclass(frozen=True)
class Clip:
    """A clip to encode: a file or its bytes, where it comes from, and what its shard says of it."""

    id: str
    audio: Path | bytes
    dataset: str
    source: str
    sample: Sample | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return printable(self.audio) if isinstance(self.audio, Path) else f"{self.source} ({self.id})"


def encode_clip(codec: Codec, clip: Clip) -> TokenRow:
    """Encode `clip`; `AudioError` if it cannot be decoded or used."""
    samples = read_audio(clip.audio, codec.sample_rate, clip.name)
    known = clip.sample
    return TokenRow(
        id=clip.id,
        source=clip.source,
        dataset=clip.dataset,
        start=known.start if known else 0.0,
        duration=len(samples) / codec.sample_rate,
        n_samples=len(samples),
        codes=codec.encode(samples, codec.sample_rate).numpy(),
        text=known.text if known else None,
        language=known.language if known else None,
        speaker=known.speaker if known else None,
        category=known.category if known else None,
    )
