"""Notes on a file that is decoded: bytes and channels that its samples do not show."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class DecodingNotes:
    """Collected while a file is decoded; complete when the last block was read.

    Attributes:
        unused_bytes: bytes behind the audio that no known structure explains.
        unmarked_ends: number of streams that end without the mark of an end, and may be cut off there.
        other_tracks: number of audio tracks, as of a film in several languages, beside the one that is decoded.
        channels: number of channels; of the stream with the most, if there are several.
        mixed_channels: number of channels that were mixed to one; 0 if the file is mono or one channel was chosen.
        loud_samples: number of mono samples beyond [-1, 1], before the rate is converted.
        sample_rate: of the file in Hz, the lowest if its streams differ; 0 before the first block.
        cancelled: start and end in seconds of each part in which the channels cancel each other, in order.
    """

    unused_bytes: int = 0
    unmarked_ends: int = 0
    other_tracks: int = 0
    channels: int = 0
    mixed_channels: int = 0
    loud_samples: int = 0
    sample_rate: int = 0
    cancelled: list[tuple[float, float]] = field(default_factory=list)

    def add_cancelled(self, start: float, end: float) -> None:
        """Add a part in which the channels cancel; it extends the last one if it begins where that ends."""
        if self.cancelled and self.cancelled[-1][1] == start:
            start = self.cancelled.pop()[0]
        self.cancelled.append((start, end))

    def cancels(self, start: float, end: float) -> bool:
        """Return True if the channels cancel somewhere between `start` and `end` seconds."""
        return any(first < end and last > start for first, last in self.cancelled)
