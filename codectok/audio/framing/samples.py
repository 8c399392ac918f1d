"""Layout of a file whose header states how many bytes of samples it has."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import BinaryIO

from .layout import Damage, Layout, Stream
from .magic import HEADER, begins_file, find_file, find_same_format

# Sizes that programs write when they cannot know the length; some subtract their headers from them.
UNKNOWN_SIZES = (
    range(0x7F00_0000, 0x7F00_1000),
    range(0x7FFF_E000, 0x8000_1000),
    range(0xFFFF_E000, 0x1_0000_0000),
    range(1 << 62, 1 << 64),
)
# Headers that are wrong by less are not worth a reject.
TOLERATED_BYTES = 128
# Bytes behind the end that the header states are taken for lost audio if they would last so long.
AUDIBLE_SECONDS = 1.0
READ_BYTES = 1 << 20
ID3V1_BYTES = 128
APE_FOOTER = 32


@dataclass(frozen=True)
class SampleData:
    """Samples of a file as its header describes them.

    Attributes:
        container: name of the file format.
        start: offset of the first sample.
        stated: bytes of samples; None if the header says that it does not know.
        block: bytes that can only be decoded together, such as one sample of all channels.
        bytes_per_second: of samples; 0 if unknown.
        stream: returns the stream that holds the given number of bytes of samples.
        end_of_chunks: returns the end of the chunks that begin at a position, given the file and its size, and the
            position itself if none does.
        first_of_chunks: returns the start of the chunks at the end of the file, given the file, the start of the
            samples and the size; the size if there are none.
        size_limit: number that the field for the size cannot hold; sizes beyond it begin again at 0.
        codec_block: bytes by which the header may differ, besides a few.
        whole: True if the decoder reads the file as it is, as long as its header is right.
        stops: True if the decoder stops at the stated end.
    """

    container: str
    start: int
    stated: int | None
    block: int
    bytes_per_second: float
    stream: Callable[[int], Stream]
    end_of_chunks: Callable[[BinaryIO, int, int], int] | None = None
    first_of_chunks: Callable[[BinaryIO, int, int], int] | None = None
    size_limit: int = 1 << 32
    codec_block: int = 0
    whole: bool = True
    stops: bool = True


def is_unknown(size: int) -> bool:
    """Return True if programs write `size` for a length that they do not know."""
    return any(size in sizes for sizes in UNKNOWN_SIZES)


def layout_of_samples(file: BinaryIO, samples: SampleData) -> Layout:
    """Layout of a file with one run of samples; the bytes of the file decide where they end."""
    size = file.seek(0, os.SEEK_END)
    available = size - samples.start
    stated = samples.stated
    if stated is None or (stated > available and is_unknown(stated)):
        return _to_the_end(file, samples, size)
    if stated > available:
        return _beyond_the_end(file, samples, size, stated)
    if stated == available:
        return Layout(samples.container, (Stream(0, size) if samples.whole else samples.stream(stated),))
    return _with_bytes_behind(file, samples, size, stated)


def _to_the_end(file: BinaryIO, samples: SampleData, size: int) -> Layout:
    """Layout of a file whose header does not know how many samples follow."""
    next_file = find_same_format(file, samples.start, size)
    end = size if next_file is None else next_file
    if samples.first_of_chunks is not None:
        end = samples.first_of_chunks(file, samples.start, end)
    return Layout(samples.container, (_stream(samples, end - samples.start),), next_file=next_file)


def _beyond_the_end(file: BinaryIO, samples: SampleData, size: int, stated: int) -> Layout:
    """Layout of a file that ends before its samples should."""
    next_file = find_same_format(file, samples.start, size)
    if next_file is not None or stated - (size - samples.start) > _tolerated_bytes(samples):
        return _cut_off(samples, size, stated, next_file)
    # The header may have counted the chunks behind the samples, too.
    end = size if samples.first_of_chunks is None else samples.first_of_chunks(file, samples.start, size)
    return Layout(samples.container, (_stream(samples, end - samples.start),))


def _cut_off(samples: SampleData, size: int, stated: int, next_file: int | None) -> Layout:
    """Layout of a file whose samples end too early, at the end of the file or where another one begins."""
    end = size if next_file is None else next_file
    found = end - samples.start
    streams = (_stream(samples, found),)
    if next_file is not None and stated - found <= _tolerated_bytes(samples):
        return Layout(samples.container, streams, next_file=next_file)
    message = f"is cut off: it has {found} of {stated} bytes"
    if next_file is not None:
        message += ", and another file follows"
    # The time of a file that follows is unknown, so that it is not decoded.
    seconds = _seconds(samples, stated - found + size - end)
    damage = Damage(message, seconds, missing_bytes=stated - found)
    return Layout(samples.container, streams, damage, next_file=next_file)


def _with_bytes_behind(file: BinaryIO, samples: SampleData, size: int, stated: int) -> Layout:
    """Layout of a file that continues behind the samples that its header states."""
    end = samples.start + stated
    next_file = find_file(file, max(samples.start, end - _tolerated_bytes(samples)), end)
    if next_file is not None:
        return _cut_off(samples, size, stated, next_file)
    next_file = next((place for place in (end, end + end % 2) if _begins_file(file, place)), None)
    rest_start = end
    if next_file is None and samples.end_of_chunks is not None:
        rest_start = samples.end_of_chunks(file, end, size)
        next_file = rest_start if _begins_file(file, rest_start) else None
    if next_file is not None:
        return Layout(samples.container, (_stream(samples, stated),), next_file=next_file)
    rest_start = _end_of_tags(file, rest_start, size)
    if rest_start == size and samples.whole and samples.stops:
        return Layout(samples.container, (Stream(0, size),))
    if rest_start == size:
        return Layout(samples.container, (_stream(samples, stated),))
    return _with_unknown_bytes_behind(file, samples, size, stated, rest_start)


def _with_unknown_bytes_behind(file: BinaryIO, samples: SampleData, size: int, stated: int, rest_start: int) -> Layout:
    """Layout of a file whose rest from `rest_start` on is neither a chunk nor a tag."""
    end, rest = samples.start + stated, size - rest_start
    if rest_start == end and (stated == 0 or rest > stated or rest >= samples.size_limit):
        return _to_the_end(file, samples, size)  # the header was written before the samples
    next_file = find_same_format(file, samples.start, end)
    if next_file is not None:
        return _cut_off(samples, size, stated, next_file)
    streams = (_stream(samples, stated),)
    next_file = find_file(file, rest_start, size)
    if next_file is not None:
        return Layout(samples.container, streams, None, next_file - rest_start, next_file)
    seconds = _seconds(samples, rest)
    if rest_start == end and seconds is not None and seconds >= AUDIBLE_SECONDS:
        message = f"has {rest} bytes behind the {stated} bytes of samples in its header, which may be audio"
        return Layout(samples.container, streams, Damage(message, seconds))
    return Layout(samples.container, streams, None, rest)


def _stream(samples: SampleData, n_bytes: int) -> Stream:
    """Return the stream of the whole blocks in the first `n_bytes` bytes of samples."""
    stream = samples.stream(n_bytes - n_bytes % samples.block)
    return stream if n_bytes >= samples.block else replace(stream, n_samples=0)


def _tolerated_bytes(samples: SampleData) -> int:
    """Number of bytes by which a header may be wrong."""
    return max(TOLERATED_BYTES, samples.codec_block)


def _seconds(samples: SampleData, n_bytes: int) -> float | None:
    return n_bytes / samples.bytes_per_second if samples.bytes_per_second > 0 else None


def _begins_file(file: BinaryIO, position: int) -> bool:
    file.seek(position)
    return begins_file(file.read(HEADER))


def _end_of_tags(file: BinaryIO, position: int, size: int) -> int:
    """Position behind the tags of other formats that some programs append, or behind padding to the end."""
    file.seek(position)
    header = file.read(ID3V1_BYTES)
    if header[:3] == b"ID3" and len(header) > 10 and max(header[6:10]) < 0x80:
        length = sum(byte << shift for byte, shift in zip(header[6:10], (21, 14, 7, 0), strict=True))
        if position + 10 + length <= size:
            return _end_of_tags(file, position + 10 + length, size)
    if header[:8] == b"APETAGEX" and len(header) >= APE_FOOTER:
        length = APE_FOOTER + int.from_bytes(header[12:16], "little")
        if position + length <= size:
            return _end_of_tags(file, position + length, size)
    if header[:3] == b"TAG" and size - position == ID3V1_BYTES:
        return size
    if _is_zero(file, position):
        return size
    return position


def _is_zero(file: BinaryIO, position: int) -> bool:
    file.seek(position)
    while data := file.read(READ_BYTES):
        if data.count(0) < len(data):
            return False
    return True
