"""A clip: audio to encode or cut, with its place in a recording, its text and its labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from codectok.audio.spans import Span
from codectok.errors import AudioError, NotAudioError
from codectok.names import printable

WHOLE = Span()  # all of the audio, without text or labels


def is_not_audio(error: AudioError) -> bool:
    """True if `error` shows a file without sound, as opposed to broken audio."""
    return isinstance(error, NotAudioError) or error.reason == "empty"


@dataclass(frozen=True)
class Clip:
    """One input of a job: an audio file, a span of one, a sample of a tar or a row of Parquet.

    Attributes:
        id: unique in the output.
        audio: the file, or its bytes.
        dataset, source: dataset and name of the recording.
        span: the part of `audio` that the clip consists of, with text and labels; all of `audio` by default.
        offset: seconds of the recording before `audio` begins; above 0 for a segment that was cut from it.
        maybe_audio: True if the name does not show that the file is audio.
    """

    id: str
    audio: Path | bytes
    dataset: str
    source: str
    span: Span = WHOLE
    offset: float = 0.0
    maybe_audio: bool = False

    @property
    def start(self) -> float:
        """Start in the recording, in seconds."""
        return self.offset + self.span.start

    @property
    def name(self) -> str:
        """Name for messages."""
        return printable(self.audio) if isinstance(self.audio, Path) else f"{self.source} ({self.id})"

    def is_not_audio(self, error: AudioError) -> bool:
        """True if `error` shows that the file is not audio, and neither name nor manifest promised it."""
        return self.maybe_audio and is_not_audio(error)
