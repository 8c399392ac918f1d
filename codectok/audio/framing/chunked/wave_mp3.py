"""MP3 frames in WAV files."""

from __future__ import annotations

from typing import BinaryIO

# kbit/s of layer III, of MPEG 1 and of MPEG 2 and 2.5.
BIT_RATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
SAMPLE_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
MAX_FRAME = 1441  # bytes
MEASURED_BYTES = 1 << 16
# Frames that must follow one another before the end, so that chance does not make one.
MIN_FRAMES = 2


def end_of_frames(file: BinaryIO, start: int, end: int) -> int:
    """Return the end of the last whole frame in a byte range; `end` if none is near it.

    Decoders that read from a pipe take a frame that is cut off for an error.
    """
    first = max(start, end - (MIN_FRAMES + 1) * MAX_FRAME)
    file.seek(first)
    data = file.read(end - first)
    for place in range(len(data) - 4):
        position, frames = place, 0
        while size := frame_bytes(data[position : position + 4]):
            if position + size > len(data):
                break
            position, frames = position + size, frames + 1
        is_chain = frames >= MIN_FRAMES or (frames == 1 and first == start and place == 0)
        if is_chain and len(data) - position < MAX_FRAME and (size or len(data) - position < 4):
            return first + position
    return end


def bytes_per_second(file: BinaryIO, start: int) -> float:
    """Return the mean bytes per second of the first frames from `start` on; 0 if there are none."""
    file.seek(start)
    data = file.read(MEASURED_BYTES)
    position = 0
    seconds = 0.0
    while size := frame_bytes(data[position : position + 4]):
        version, rate = data[position + 1] >> 3 & 3, data[position + 2] >> 2 & 3
        seconds += (1152 if version == 3 else 576) / SAMPLE_RATES[version][rate]
        position += size
    return position / seconds if seconds else 0.0


def frame_bytes(header: bytes) -> int:
    """Return the length of a frame of layer III by its header of 4 bytes; 0 if it is not one."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version, bit_rate, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version not in SAMPLE_RATES or bit_rate in (0, 15) or rate == 3:
        return 0
    factor = 144_000 if version == 3 else 72_000
    return factor * BIT_RATES[version != 3][bit_rate] // SAMPLE_RATES[version][rate] + (header[2] >> 1 & 1)
