"""Headers of FLAC: the frames and the STREAMINFO block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np

LONGEST_HEADER = 16
INFO_SIZE = 34
BLOCK_SIZES = (0, 192, 576, 1152, 2304, 4608, -1, -2, *(256 << power for power in range(8)))
RATES = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
BITS = (0, 8, 12, -1, 16, 20, 24, 32)  # -1 is reserved


def _crc_table(polynomial: int, width: int) -> tuple[int, ...]:
    table = []
    for byte in range(256):
        register = byte << (width - 8)
        for _ in range(8):
            register = (register << 1) ^ (polynomial if register >> (width - 1) else 0)
            register &= (1 << width) - 1
        table.append(register)
    return tuple(table)


CRC8 = _crc_table(0x07, 8)
POLYNOMIAL16 = 0x8005
POWERS = 32767  # of x that differ modulo this polynomial


class FrameHeader(NamedTuple):
    """Header of a frame.

    Attributes:
        variable: True if `number` counts samples instead of frames, so that block sizes may vary.
        block_size: samples per channel.
        sample_rate, bits: 0 if only the STREAMINFO block tells.
        channels: number of channels.
        number: of the first sample, or of the frame.
    """

    variable: bool
    block_size: int
    sample_rate: int
    channels: int
    bits: int
    number: int

    @property
    def format(self) -> tuple[bool, int, int, int]:
        """The fields that are the same for all frames of a stream."""
        return self.variable, self.sample_rate, self.channels, self.bits

    @property
    def next_number(self) -> int:
        """Number of the frame that follows."""
        return self.number + (self.block_size if self.variable else 1)

    @property
    def longest(self) -> int:
        """Most bytes that an encoder can need for this frame, with the difference channel's additional bit."""
        return LONGEST_HEADER + self.channels * (8 + self.block_size * ((self.bits or 32) + 1) // 8) + 2


def frame_header(data: bytes) -> FrameHeader | None:
    """Parse the header at the start of `data`; None if it is not one, by its reserved bits and its CRC."""
    if len(data) < 6 or data[0] != 0xFF or data[1] & 0xFE != 0xF8:
        return None
    size_code, rate_code, channel_code, bits = data[2] >> 4, data[2] & 15, data[3] >> 4, BITS[data[3] >> 1 & 7]
    if size_code == 0 or rate_code == 15 or channel_code > 10 or bits < 0 or data[3] & 1:
        return None
    # The number is coded as in UTF-8, with up to 36 bits.
    length = 8 - (data[4] ^ 0xFF).bit_length() or 1
    at = 4 + length
    if data[4] & 0xC0 == 0x80 or length > 7 or any(byte & 0xC0 != 0x80 for byte in data[5:at]):
        return None
    number = data[4] & (0x7F >> (length if length > 1 else 0))
    for byte in data[5:at]:
        number = number << 6 | byte & 0x3F
    block_size = BLOCK_SIZES[size_code]
    if block_size < 0:
        width = -block_size
        block_size = int.from_bytes(data[at : at + width], "big") + 1
        at += width
    if rate_code < len(RATES):
        sample_rate = RATES[rate_code]
    else:
        width, unit = {12: (1, 1000), 13: (2, 1), 14: (2, 10)}[rate_code]
        sample_rate = int.from_bytes(data[at : at + width], "big") * unit
        at += width
    crc = 0
    for byte in data[: at + 1]:  # a CRC over itself is 0
        crc = CRC8[crc ^ byte]
    if crc or len(data) <= at:
        return None
    channels = channel_code + 1 if channel_code < 8 else 2
    return FrameHeader(bool(data[1] & 1), block_size, sample_rate, channels, bits, number)


def frame_ends(data: bytes) -> list[int]:
    """Offsets in `data`, which begins with a frame, where the frame may end by its CRC-16.

    One of them is the end if the frame is whole; each other one arises by chance (1 of 65,536 bytes).
    """
    values = np.frombuffer(data, np.uint8)
    # A CRC is a remainder of polynomials. It is 0 where the sum of bytes times x ** (-8 * offset) is 0; the sums of all
    # beginnings of `data` are found at once. `weights` are x ** (bit - 8 * offset).
    weights = np.resize(_weights_of_bytes(), len(values))
    terms = np.zeros(len(values), np.uint16)
    for bit in range(8):
        terms ^= weights * (values >> bit & 1)
        weights = weights << 1 ^ (weights >> 15) * np.uint16(POLYNOMIAL16)
    ends: list[int] = (np.flatnonzero(np.bitwise_xor.accumulate(terms) == 0) + 1).tolist()
    return ends


@cache
def _weights_of_bytes() -> np.ndarray:
    """Powers 0, -8, -16 ... of x modulo the polynomial of the CRC-16, uint16; they repeat after `POWERS`."""
    powers, power = np.zeros(POWERS, np.uint16), 1
    for exponent in range(POWERS):
        powers[exponent] = power
        power = power << 1 ^ (0x10000 | POLYNOMIAL16 if power & 0x8000 else 0)
    weights: np.ndarray = powers[-8 * np.arange(POWERS) % POWERS]
    return weights


@dataclass(frozen=True)
class StreamInfo:
    """The STREAMINFO block, whose claims are compared with the frames.

    Attributes:
        data: the block without its header.
    """

    data: bytes

    @property
    def block_size(self) -> int:
        """Largest block size."""
        return int.from_bytes(self.data[2:4], "big")

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return self._fields >> 44

    @property
    def channels(self) -> int:
        """Number of channels."""
        return (self._fields >> 41 & 7) + 1

    @property
    def bits(self) -> int:
        """Bits per sample."""
        return (self._fields >> 36 & 31) + 1

    @property
    def n_samples(self) -> int:
        """Samples per channel; 0 if unknown, as all ones are, which some writers leave."""
        total = self._fields & (1 << 36) - 1
        return 0 if total == (1 << 36) - 1 else total

    @property
    def _fields(self) -> int:
        return int.from_bytes(self.data[10:18], "big")

    def corrected(self, frame: FrameHeader, n_samples: int) -> StreamInfo:
        """This block with the format of `frame` and `n_samples`."""
        rate, bits = frame.sample_rate or self.sample_rate, frame.bits or self.bits
        fields = rate << 44 | frame.channels - 1 << 41 | bits - 1 << 36 | n_samples
        return replace(self, data=self.data[:10] + fields.to_bytes(8, "big") + self.data[18:])
