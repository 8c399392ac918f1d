"""Layout of an audio file: its streams, and the bytes that are not part of one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stream:
    """Bytes of a file that a decoder reads as if they were a file.

    Attributes:
        start, end: byte range in the file; the last byte is excluded.
        patches: bytes that replace others, by their offset in the file, such as a corrected length in a header.
        n_samples: samples per channel that these bytes hold; None if only decoding can tell.
        piped: True if the decoder must read from a pipe, since it would believe a wrong length in a file.
        seconds: duration, which is rejected if an earlier stream turns out to be damaged; None if unknown.
    """

    start: int
    end: int
    patches: tuple[tuple[int, bytes], ...] = ()
    n_samples: int | None = None
    piped: bool = False
    seconds: float | None = None


@dataclass(frozen=True)
class Damage:
    """Damage that ends a file's usable audio.

    Attributes:
        message: the rest of a sentence that begins with the name of the file, without a full stop.
        seconds: duration of the audio behind it that is not decoded; None if unknown.
    """

    message: str
    seconds: float | None = None


@dataclass(frozen=True)
class Layout:
    """All bytes of a file, by their use.

    Attributes:
        container: name of the file format.
        streams: in order; their samples follow one another.
        damage: of what follows the last stream; None if the file is whole.
        unused_bytes: bytes behind the last stream that no known structure explains.
    """

    container: str
    streams: tuple[Stream, ...]
    damage: Damage | None = None
    unused_bytes: int = 0
