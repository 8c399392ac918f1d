"""Durations of the packets of Opus and Vorbis, by their first bytes."""

from __future__ import annotations

from typing import Protocol

VORBIS_MODE_BITS = 41  # block flag, window type, transform type, mapping
MODE_COUNT_BITS = 6


class PacketTimer(Protocol):
    """Adds up the durations of the packets of a stream.

    Attributes:
        sample_rate: unit of the durations.
        n_headers: number of packets before the audio.
        pre_skip: samples at the start that decoders drop.
    """

    sample_rate: int
    n_headers: int
    pre_skip: int

    def header(self, index: int, packet: bytes) -> None:
        """Take in a header; `index` counts from 0."""

    def duration(self, packet: bytes) -> int | None:
        """Samples that a decoder returns for the next packet, of which two bytes are enough; None if unknown."""


def packet_timer(packet: bytes) -> PacketTimer | None:
    """Timer for a stream with the first `packet`; None for other codecs."""
    if packet[:8] == b"OpusHead" and len(packet) >= 19:
        return OpusTimer()
    if packet[:7] == b"\x01vorbis" and len(packet) >= 30:
        return VorbisTimer()
    return None


def _opus_frame(toc: int) -> int:
    """Samples of a frame at 48 kHz."""
    config = toc >> 3
    if config < 12:
        return (480, 960, 1920, 2880)[config & 3]
    return (480, 960)[config & 1] if config < 16 else 120 << (config & 3)


class OpusTimer:
    """Durations of Opus packets."""

    FRAMES = tuple(_opus_frame(toc) * (1, 2, 2, 0)[toc & 3] for toc in range(256))

    def __init__(self) -> None:
        self.sample_rate, self.n_headers, self.pre_skip = 48_000, 2, 0

    def header(self, index: int, packet: bytes) -> None:
        """Take in a header."""
        if index == 0:
            self.pre_skip = int.from_bytes(packet[10:12], "little")

    def duration(self, packet: bytes) -> int | None:
        """Samples of a packet at 48 kHz."""
        if not packet:
            return 0
        toc = packet[0]
        if toc & 3 < 3:
            return self.FRAMES[toc]
        return _opus_frame(toc) * (packet[1] & 0x3F) if len(packet) > 1 else 0


class VorbisTimer:
    """Durations of Vorbis packets."""

    def __init__(self) -> None:
        self.sample_rate, self.n_headers, self.pre_skip = 0, 3, 0
        self._sizes = (0, 0)
        self._blocks: tuple[int, ...] = ()  # size by the first byte of a packet
        self._previous = 0

    def header(self, index: int, packet: bytes) -> None:
        """Take in a header."""
        if index == 0:
            self.sample_rate = int.from_bytes(packet[12:16], "little")
            self._sizes = 1 << (packet[28] & 15), 1 << (packet[28] >> 4)
        elif index == 2:
            flags = vorbis_block_flags(packet)
            if flags:
                mask = (1 << (len(flags) - 1).bit_length()) - 1
                modes = [byte >> 1 & mask for byte in range(256)]
                self._blocks = tuple(self._sizes[flags[mode]] if mode < len(flags) else 0 for mode in modes)

    def duration(self, packet: bytes) -> int | None:
        """Samples of a packet: a quarter of its block and of the one before."""
        if not self._blocks:
            return None
        if not packet or packet[0] & 1:
            return 0
        block = self._blocks[packet[0]]
        if not block:
            return 0
        previous, self._previous = self._previous, block
        return (previous + block) // 4 if previous else 0


def vorbis_block_flags(setup: bytes) -> list[int]:
    """Block flag of each mode, from the end of a setup header; empty if it cannot be found.

    The modes are the last entries before the framing bit, and hold many zeros: they are counted from the end until
    their number stands before them.
    """
    bits = int.from_bytes(setup[-400:], "little")
    end = bits.bit_length() - 1  # of the modes; the framing bit is the highest that is set
    flags: list[int] = []
    found: list[int] = []
    while end >= VORBIS_MODE_BITS + MODE_COUNT_BITS and len(flags) < 64:
        end -= VORBIS_MODE_BITS
        mode = bits >> end & (1 << VORBIS_MODE_BITS) - 1
        if mode >> 1 & 0xFFFF_FFFF or mode >> 33 > 63:
            break
        flags.insert(0, mode & 1)
        if (bits >> end - MODE_COUNT_BITS & 63) + 1 == len(flags):
            found = list(flags)
    return found
