"""Walking over the frames of a FLAC stream by their headers, without decoding."""

from __future__ import annotations

from dataclasses import dataclass

from codectok.audio.framing.magic import HEADER, begins_file
from codectok.audio.framing.tags import end_of_tags
from codectok.audio.framing.window import Window

from .frames import INFO_SIZE, LONGEST_HEADER, FrameHeader, frame_ends, frame_header

MARKER = b"fLaC"
SHORTEST_FRAME = 9


@dataclass(frozen=True)
class Walk:
    """Frames of a stream that follow one another by their numbers.

    Attributes:
        first_sample: number of the first sample; not 0 if the stream was cut from another one.
        n_samples: samples per channel of the whole frames up to the first gap.
        n_numbered: samples per channel by the numbers of all frames, including gaps and a cut-off frame.
        complete: True if the last frame is shorter than others, as only the last one of a stream is.
        lost: True if there is a gap.
        end: offset of the end of the last whole frame; with a gap, of the first frame behind it.
        limit: offset of the next stream, or of the end of the file.
    """

    first_sample: int
    n_samples: int
    n_numbered: int
    complete: bool
    lost: bool
    end: int
    limit: int


def marker_at(data: Window, position: int) -> bool:
    """Return True if a stream begins at `position`."""
    start = data.read(position, 8)
    return start[:4] == MARKER and start[4:5] in (b"\x00", b"\x80") and start[5:] == INFO_SIZE.to_bytes(3, "big")


def walk_frames(data: Window, position: int, first: FrameHeader, block_size: int) -> Walk:
    """Walk from the first frame at `position` to the next stream or the end of the file.

    `block_size` is that of full frames, according to STREAMINFO, for a stream of a single frame.
    """
    unit = 1 if first.variable else first.block_size
    gap: tuple[int, int, FrameHeader] | None = None  # where it ends, and the last frame before it
    last_at, last = position, first
    candidate: tuple[int, FrameHeader] | None = None  # does not follow; confirmed by a frame that follows it
    n_samples, n_frames = first.block_size, 1
    needle = bytes([0xFF, 0xF8 | first.variable])
    at = searched = position  # no stream begins before `searched`
    while True:
        at = data.find(needle, at + (SHORTEST_FRAME if at == last_at else 1), data.end)
        header = frame_header(data.read(at, LONGEST_HEADER)) if at >= 0 else None
        if at >= 0 and header is None:
            continue
        if header is None or header.format != first.format or header.number != last.next_number:
            limit = next_marker(data, max(searched, last_at), at if at >= 0 else data.end)
            if limit >= 0 or header is None:
                break
            searched = at
            if header.format != first.format:
                continue
            if candidate is None or header.number != candidate[1].next_number:
                candidate = at, header
                continue
            gap = gap or (candidate[0], last_at, last)
        candidate = None
        last_at, last = at, header
        n_frames += 1
        if gap is None:
            n_samples += header.block_size
    limit = limit if limit >= 0 else data.end
    if candidate and candidate[1].number > last.number and _ends(data, *candidate, limit):
        gap = gap or (candidate[0], last_at, last)
        last_at, last = candidate
    first_sample = first.number * unit
    n_numbered = last.number * unit + last.block_size - first_sample
    complete = not first.variable and last.block_size < (first.block_size if n_frames > 1 else block_size)
    end, before_at, before = gap or (limit, last_at, last)
    ends = _ends(data, before_at, before, end)
    if not ends:
        n_samples -= before.block_size
    elif gap is None:
        explained = [at for at in ends if end_of_tags(data, at, limit) == limit]
        before_file = [at for at in ends if begins_file(data.read(at, HEADER))]
        end = (explained or before_file or ends)[-1]
    return Walk(first_sample, n_samples, max(n_numbered, n_samples), complete, gap is not None, end, limit)


def next_marker(data: Window, position: int, end: int) -> int:
    """Offset of the first stream that begins in [position, end); -1 if there is none."""
    while (position := data.find(MARKER, position, end)) >= 0 and not marker_at(data, position):
        position += 1
    return position


def _ends(data: Window, position: int, frame: FrameHeader, limit: int) -> list[int]:
    """Offsets where a frame may end by its CRC; none if it is not whole."""
    longest = data.read(position, min(frame.longest, limit - position))
    return [position + end for end in frame_ends(longest)]
