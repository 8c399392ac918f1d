"""Layout of an audio file: its streams, and the bytes that are not part of one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from codectok.errors import Reason


@dataclass(frozen=True)
class Stream:
    """Bytes of a file that a decoder reads as if they were a file.

    Attributes:
        start, end: byte range in the file; the last byte is excluded.
        patches: bytes that replace others, by their offset in the file, such as a corrected length in a header.
        n_samples: samples per channel that these bytes hold; None if only decoding can tell.
        piped: True if the decoder must read from a pipe, since it would believe a wrong length in a file.
        head: bytes that come before the range, such as a header that replaces the one of the file.
        holes: byte ranges inside the range that the decoder does not see, in order.
        seconds: duration, which is rejected if an earlier stream turns out to be damaged; None if unknown.
        coded: True if libsndfile would take compressed audio for samples.
    """

    start: int
    end: int
    patches: tuple[tuple[int, bytes], ...] = ()
    n_samples: int | None = None
    piped: bool = False
    head: bytes = b""
    holes: tuple[tuple[int, int], ...] = ()
    seconds: float | None = None
    coded: bool = False

    def shifted(self, offset: int) -> Stream:
        """Return the stream with `offset` bytes more before it."""
        patches = tuple((place + offset, patch) for place, patch in self.patches)
        holes = tuple((start + offset, end + offset) for start, end in self.holes)
        return replace(self, start=self.start + offset, end=self.end + offset, patches=patches, holes=holes)


@dataclass(frozen=True)
class Damage:
    """Damage that ends a file's usable audio.

    Attributes:
        message: the rest of a sentence that begins with the name of the file, without a full stop.
        seconds: duration of the audio behind it that is not decoded; None if unknown.
        reason: of the reject.
        missing_bytes: of samples that the header states; None if unknown.
    """

    message: str
    seconds: float | None = None
    reason: Reason = "decode_error"
    missing_bytes: int | None = None


@dataclass(frozen=True)
class Layout:
    """All bytes of a file, by their use.

    Attributes:
        container: name of the file format.
        streams: in order; their samples follow one another.
        damage: of what follows the last stream; None if the file is whole.
        unused_bytes: bytes behind the last stream that no known structure explains.
        next_file: offset at which another file begins whose layout is to follow; None if there is none.
        unmarked_ends: number of streams that end between two pages without the mark of an end: their writer set none,
            or the file is cut off there.
    """

    container: str
    streams: tuple[Stream, ...]
    damage: Damage | None = None
    unused_bytes: int = 0
    next_file: int | None = None
    unmarked_ends: int = 0
