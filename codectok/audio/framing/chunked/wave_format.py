"""The format chunk of WAV, RF64 and W64 files."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from codectok.audio.framing.layout import Damage
from codectok.audio.framing.magic import MAX_CHANNELS

PCM, MS_ADPCM, FLOAT, A_LAW, MU_LAW, IMA_ADPCM = 0x01, 0x02, 0x03, 0x06, 0x07, 0x11
GSM, NMS_ADPCM, G721, MP3, EXTENSIBLE = 0x31, 0x38, 0x40, 0x55, 0xFFFE
G721_BLOCK = 60  # bytes that libsndfile decodes together
SAMPLES_OF_EQUAL_SIZE = (PCM, FLOAT, A_LAW, MU_LAW)
SAMPLES_OF_BLOCK = {GSM: 320, NMS_ADPCM: 160}
FORMAT_BYTES = 64  # of a format chunk that matter
# Decoders believe wrong block sizes of files with few channels, since careless programs write them.
PLAUSIBLE_CHANNELS = 8


@dataclass(frozen=True)
class WaveFormat:
    """Format of samples.

    Attributes:
        tag: number of the encoding.
        channels, sample_rate, bytes_per_second, block, bits: as in the header.
        samples_per_block: samples per channel in a block of a codec; 0 if unknown.
    """

    tag: int
    channels: int
    sample_rate: int
    bytes_per_second: int
    block: int
    bits: int
    samples_per_block: int

    @classmethod
    def parse(cls, data: bytes, order: str = "<") -> WaveFormat | None:
        """Parse the contents of a format chunk; None if it is too short."""
        if len(data) < 16:
            return None
        tag, channels, sample_rate, bytes_per_second, block, bits = struct.unpack_from(order + "HHIIHH", data)
        samples_per_block = SAMPLES_OF_BLOCK.get(tag, 0)
        if tag in (MS_ADPCM, IMA_ADPCM) and len(data) >= 20:
            samples_per_block = struct.unpack_from(order + "H", data, 18)[0]
        if tag == EXTENSIBLE and len(data) >= 26:
            tag = struct.unpack_from(order + "H", data, 24)[0]
        return cls(tag, channels, sample_rate, bytes_per_second, block, bits, samples_per_block)

    @property
    def frame(self) -> int:
        """Bytes that can only be decoded together."""
        if self.tag in SAMPLES_OF_EQUAL_SIZE:
            return self._sample_bytes * self.channels or 1
        if self.tag == G721:
            return G721_BLOCK
        return self.block or 1 if self.samples_per_block else 1

    @property
    def rate_of_bytes(self) -> float:
        """Bytes of one second."""
        if self.tag in SAMPLES_OF_EQUAL_SIZE:
            return self.frame * self.sample_rate
        if self.samples_per_block:
            return self.block * self.sample_rate / self.samples_per_block
        return self.bytes_per_second

    @property
    def _sample_bytes(self) -> int:
        needed = (self.bits + 7) // 8
        if self.channels and self.block % self.channels == 0 and needed <= self.block // self.channels <= 8:
            return self.block // self.channels  # such as 24 bits in 4 bytes
        return needed

    def fault(self) -> Damage | None:
        """Return the reason why the format is impossible; None if it is not."""
        if self.channels == 0 or self.channels > MAX_CHANNELS:
            return Damage(f"has an impossible number of {self.channels} channels", None, "unreadable")
        if self.sample_rate == 0:
            return Damage("has an impossible sample rate of 0 Hz", None, "unreadable")
        block = self.channels * ((self.bits + 7) // 8)
        contradicts = self.block < block and self.bytes_per_second == self.block * self.sample_rate
        if self.tag in SAMPLES_OF_EQUAL_SIZE and self.channels > PLAUSIBLE_CHANNELS and contradicts:
            message = f"has a damaged header: {self.channels} channels of {self.bits} bits are not {self.block} bytes"
            return Damage(message, None, "unreadable")
        return None
