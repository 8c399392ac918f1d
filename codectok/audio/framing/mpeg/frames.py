"""Frames of MPEG audio, layers I to III: their headers, lengths and formats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from codectok.audio.framing.window import Window

HEADER = 4
# The longest frame: layer II at 384 kbit/s and 32 kHz, one slot of padding; free format is bounded by mpg123.
LONGEST_FRAME = 3456
SYNC = re.compile(rb"\xff[\xe2-\xff]")
# Of a header: everything that its frame's length depends on.
LENGTH_BITS = 0xFFFE_FE00
MODE_BITS, MONO = 0xC0, 0xC0
PROTECTION_BIT = 0x1_0000
PADDING_BIT = 0x200
RATE_BITS = 0xF000  # the index of the bit rate; 0 is a free one
# Headers that prove a free bit rate, and places that are tried for the second one.
FREE_HEADERS, FREE_CANDIDATES = 4, 8
BITRATES = {  # kbit/s by MPEG version (1, or 2 and 2.5) and layer
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES = (44_100, 48_000, 32_000)
VERSIONS = {3: 1, 2: 2, 0: 4}  # bits of a header: the divisor of the rates


@dataclass(frozen=True)
class FrameFormat:
    """Format of frames that a decoder reads as one stream.

    Attributes:
        sample_rate: in Hz.
        layer: 1, 2 or 3.
        mpeg1: True for MPEG 1, False for 2 and 2.5.
        mono: True for one channel.
        bits: version, layer and rate as in the header, without its sync bits.
        lengths: bytes of a frame by the `LENGTH_BITS` of its header.
    """

    sample_rate: int
    layer: int
    mpeg1: bool
    mono: bool
    bits: int
    lengths: Mapping[int, int]

    @property
    def is_free(self) -> bool:
        """True if the bit rate is not one of the listed ones, so that a decoder must search for the next header."""
        return len(self.lengths) == 2

    @property
    def samples(self) -> int:
        """Samples of a frame, per channel."""
        if self.layer == 1:
            return 384
        return 1152 if self.mpeg1 or self.layer == 2 else 576

    @property
    def side_info(self) -> int:
        """Bytes between the header of a layer III frame and its main data."""
        if self.mpeg1:
            return 17 if self.mono else 32
        return 9 if self.mono else 17

    def is_like(self, other: FrameFormat) -> bool:
        """Return True if a decoder can read frames of both formats as one stream."""
        return (self.bits, self.mono) == (other.bits, other.mono)

    def length(self, word: int) -> int | None:
        """Bytes of the frame with the header `word`; None if it is not a header of this format."""
        return self.lengths.get(word & LENGTH_BITS) if (word & MODE_BITS == MONO) == self.mono else None


def _formats() -> dict[int, tuple[FrameFormat, FrameFormat]]:
    """All formats for two channels and for one, by the bits of version, layer and rate in a header."""
    formats = {}
    for version, divisor in VERSIONS.items():
        for layer in (1, 2, 3):
            for rate_index, full_rate in enumerate(RATES):
                rate = full_rate // divisor
                bits = version << 19 | (4 - layer) << 17 | rate_index << 10
                lengths = {}
                for index, kilobits in enumerate(BITRATES[min(divisor, 2), layer], 1):
                    for padding in (0, 1):
                        length = _length(layer, divisor == 1, kilobits * 1000, rate, padding)
                        lengths[0xFFE0_0000 | bits | index << 12 | padding << 9] = length
                formats[bits] = tuple(
                    FrameFormat(rate, layer, divisor == 1, mono, bits, lengths) for mono in (False, True)
                )
    return formats  # type: ignore[return-value]


def _length(layer: int, mpeg1: bool, bitrate: int, rate: int, padding: int) -> int:
    if layer == 1:
        return (12 * bitrate // rate + padding) * 4
    return (144 if mpeg1 or layer == 2 else 72) * bitrate // rate + padding


FORMATS = _formats()
FORMAT_BITS = 0x1E_0C00


def format_at(data: Window, position: int, free: bool = True) -> FrameFormat | None:
    """Format of the frame that begins at `position`; None if no header is there.

    A frame of a free bit rate is known by the next ones; without `free` it counts as none.
    """
    header = data.read(position, HEADER)
    word = int.from_bytes(header, "big")
    formats = FORMATS.get(word & FORMAT_BITS) if len(header) == HEADER and word >> 21 == 0x7FF else None
    if formats is None:
        return None
    frame_format = formats[word & MODE_BITS == MONO]
    if word & RATE_BITS == 0:
        return _free_format(data, position, word, frame_format) if free else None
    return frame_format if frame_format.length(word) is not None else None


def frame_length(data: Window, position: int, frame_format: FrameFormat) -> int:
    """Bytes of the frame at `position`, as its header says; 0 if it has another format."""
    return frame_format.length(int.from_bytes(data.read(position, HEADER), "big")) or 0


def _free_format(data: Window, position: int, word: int, frame_format: FrameFormat) -> FrameFormat | None:
    """Format of a frame with a free bit rate: its length is the distance to the next equal header."""
    slot, plain = 4 if frame_format.layer == 1 else 1, word & LENGTH_BITS & ~PADDING_BIT
    frame = data.read(position, LONGEST_FRAME + HEADER)
    place, candidates = HEADER, 0
    while candidates < FREE_CANDIDATES and 0 < (place := frame.find(b"\xff", place)) <= len(frame) - HEADER:
        following = int.from_bytes(frame[place : place + HEADER], "big")
        if following & LENGTH_BITS & ~PADDING_BIT == plain and (following ^ word) & MODE_BITS == 0:
            candidates += 1
            base = place - (slot if word & PADDING_BIT else 0)
            free = replace(frame_format, lengths={plain: base, plain | PADDING_BIT: base + slot})
            if chain_length(data, position, free, FREE_HEADERS) == FREE_HEADERS:
                return free
        place += 1
    return None


def chain_length(data: Window, position: int, frame_format: FrameFormat, at_most: int) -> int:
    """Number of headers of one format, up to `at_most`, of which each is where the one before says."""
    protection: int | None = None
    for count in range(at_most):
        header = data.read(position, HEADER)
        word = int.from_bytes(header, "big")
        length = frame_format.length(word) if len(header) == HEADER else None
        if length is None or (protection is not None and word & PROTECTION_BIT != protection):
            return count
        protection = word & PROTECTION_BIT
        position += length
    return at_most
