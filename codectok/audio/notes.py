"""Notes on a file that is decoded: bytes and channels that its samples do not show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class DecodingNotes:
    """Collected while a file is decoded; complete when the last block was read.

    Attributes:
        unused_bytes: bytes behind the audio that no known structure explains.
        other_tracks: number of audio tracks, as of a film in several languages, beside the one that is decoded.
        mixed_channels: number of channels that were mixed to one; 0 if the file is mono.
    """

    unused_bytes: int = 0
    other_tracks: int = 0
    mixed_channels: int = 0
