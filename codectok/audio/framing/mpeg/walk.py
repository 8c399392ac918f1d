"""Walk over MPEG audio: runs of frames, and the gaps between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from codectok.audio.framing.tags import is_id3v2, tag_end
from codectok.audio.framing.window import Window

from .frames import HEADER, LENGTH_BITS, MODE_BITS, MONO, SYNC, FrameFormat, chain_length, format_at, frame_length
from .length_frame import SPAN, VBRI_MARK, VBRI_PLACE, LengthFrame, length_frame_at

# Headers that must follow one another: next to known structures, where any byte may look like a header, and inside of
# a tag, which may hold a short piece of sound itself.
LIKELY, SURE, CERTAIN = 2, 4, 16
# Of a header: what an encoder leaves the same from frame to frame.
SAME_BITS = 0xFFFF_0DCF
XING_MARKS = frozenset([b"Xing", b"Info"])
ANYTHING = re.compile(SYNC.pattern + rb"|ID3|TAG|APETAGEX|LYRICSBEGIN")

GapKind = Literal["tags", "partial", "unknown"]


@dataclass(frozen=True)
class Run:
    """Frames of one format, each where the one before ends.

    Attributes:
        start, end: byte range; includes the length frame.
        last: offset of the last frame.
        n_frames: number of frames that hold audio.
        format: of the frames.
        length_frame: at its beginning; None without one.
    """

    start: int
    end: int
    last: int
    n_frames: int
    format: FrameFormat
    length_frame: LengthFrame | None

    @property
    def n_samples(self) -> int:
        """Samples in all frames, before trimming."""
        return self.n_frames * self.format.samples

    @property
    def seconds(self) -> float:
        """Duration of all frames."""
        return self.n_samples / self.format.sample_rate


@dataclass(frozen=True)
class Gap:
    """Bytes between runs of frames.

    Attributes:
        start, end: byte range. It may begin inside the last frame of the run before, which is cut off then.
        kind: "tags" for tags and padding, "partial" for a cut-off frame, "unknown" for all else.
        id3v2: True for tags of which one is ID3v2, which stand at the beginning of a file.
        skipped: True for tags that a decoder skips inside of a stream.
    """

    start: int
    end: int
    kind: GapKind
    id3v2: bool = False
    skipped: bool = False


def walk(data: Window, leading: int) -> Iterator[Run | Gap]:
    """Yield the runs and gaps of `data` in order, which cover its bytes.

    The walk ends early if neither a tag nor a frame begins in the first `leading` bytes.
    """
    position = data.start
    run: Run | None = None
    while position < data.end:
        gap = _tags(data, position, is_first=run is None)
        if gap is None:
            # A flipped bit can make a header of another format, but not several.
            frame_format = _format_of_run(data, position, SURE if run and run.end == position else LIKELY)
            if frame_format is not None:
                run = _run(data, position, frame_format)
                hidden = hidden_frames(data, run)
                if hidden is not None:
                    run, gap = hidden
                    yield run
                    yield gap
                    position = gap.end
                    continue
                yield run
                position = run.end
                continue
            limit = data.end if position > data.start else min(data.end, data.start + leading)
            gap = _unknown(data, position, run, limit)
            if run is None and gap.end == limit:
                return
        yield gap
        position = gap.end


def _format_of_run(data: Window, position: int, headers: int, free: bool = True) -> FrameFormat | None:
    """Format of the frames from `position` on; None if fewer than `headers` follow and no known end explains that.

    See `format_at` for `free`.
    """
    frame_format = format_at(data, position, free)
    length = 0 if frame_format is None else frame_length(data, position, frame_format)
    if frame_format is None or position + length > data.end:
        return None
    if length_frame_at(data, position, frame_format, length) is not None:
        # Its own format may differ from that of the audio behind it.
        following = format_at(data, position + length)
        return following or (frame_format if _is_end(data, position + length) else None)
    found = chain_length(data, position, frame_format, headers)
    end = position
    for _ in range(found):
        end += frame_length(data, end, frame_format)
    cut_off = found >= headers - 1 and end > data.end
    return frame_format if found == headers or cut_off or (found >= headers // 2 and _is_end(data, end)) else None


def _is_end(data: Window, position: int) -> bool:
    """Return True if frames may end at `position`: at the end, before a tag or before other frames."""
    if position == data.end or tag_end(data, position) is not None:
        return True
    frame_format = format_at(data, position)
    if frame_format is None:
        return False
    length = frame_length(data, position, frame_format)
    return (
        length_frame_at(data, position, frame_format, length) is not None
        or chain_length(data, position, frame_format, SURE) == SURE
    )


def _run(data: Window, start: int, frame_format: FrameFormat) -> Run:
    """Follow the headers of one format from `start` on."""
    position, length_frame = start, None
    first_format = format_at(data, start)
    if first_format is not None:
        length = frame_length(data, start, first_format)
        length_frame = length_frame_at(data, start, first_format, length)
        position += length if length_frame is not None else 0
    last, n_frames = start, 0
    lengths, mono, mark = frame_format.lengths, frame_format.mono, HEADER + frame_format.side_info
    ended = False
    while not ended:
        chunk = data.read_once(position)
        at_end = position + len(chunk) == data.end
        # Frames near the end of a chunk are left to the next one, which shows them whole.
        usable = len(chunk) if at_end else len(chunk) - SPAN
        place = 0
        while True:
            if place >= usable:
                ended = at_end
                break
            word = int.from_bytes(chunk[place : place + HEADER], "big")
            length = lengths.get(word & LENGTH_BITS, 0)
            ended = not length or (word & MODE_BITS == MONO) != mono or position + place + length > data.end
            if chunk[place + mark : place + mark + 4] in XING_MARKS or (
                chunk[place + VBRI_PLACE : place + VBRI_PLACE + 4] == VBRI_MARK
            ):
                ended = ended or length_frame_at(data, position + place, frame_format, length) is not None
            if ended:
                break
            last = position + place
            place += length
            n_frames += 1
        position += place
    return Run(start, position, last, n_frames, frame_format, length_frame)


def hidden_frames(data: Window, run: Run) -> tuple[Run, Gap] | None:
    """The run up to a frame that claims the bytes of the next ones too, and that frame; None without one.

    A wrong bit rate may lead the walk past several frames to the header of a later one.
    """
    position, claimed = run.start, 0
    if run.length_frame is not None:
        claimed = run.length_frame.n_frames or 0
        own_format = format_at(data, position)
        position += 0 if own_format is None else frame_length(data, position, own_format)
    if 0 < claimed <= run.n_frames or run.format.is_free:
        return None
    shortest, last = run.end, run.start
    for number in range(run.n_frames):
        length = frame_length(data, position, run.format)
        shortest = min(shortest, length)
        if length >= 2 * shortest - 2:
            inside = _hidden_in(data, position, length, run.format)
            if inside is not None:
                shortened = Run(run.start, position, last, number, run.format, run.length_frame)
                return shortened, Gap(position, inside, "unknown")
        last = position
        position += length
    return None


def _hidden_in(data: Window, start: int, length: int, frame_format: FrameFormat) -> int | None:
    """Offset of the first of the frames inside the one at `start` which end where it does."""
    frame = data.read(start, length)
    for match in SYNC.finditer(frame, HEADER):
        place = match.start()
        word = int.from_bytes(frame[place : place + HEADER], "big")
        if (word ^ int.from_bytes(frame[:HEADER], "big")) & SAME_BITS:
            continue
        while place < length and (size := frame_format.length(int.from_bytes(frame[place : place + HEADER], "big"))):
            place += size
        if place == length:
            return start + match.start()
    return None


def _tags(data: Window, start: int, is_first: bool) -> Gap | None:
    """Tags and zero padding from `start` on; None without any."""
    position, id3v2, skipped = start, False, True
    while position < data.end:
        end = tag_end(data, position)
        if end is not None:
            begins = is_id3v2(data, position)
            id3v2, skipped = id3v2 or begins, skipped and (begins or data.read(position, 3) == b"TAG")
            position = _believed_end(data, position, end, is_first) if begins else min(end, data.end)
            continue
        after = data.skip_zeros(position)
        if after == position or not (
            after == data.end or tag_end(data, after) is not None or _format_of_run(data, after, SURE) is not None
        ):
            break  # zeros before anything else have overwritten audio
        position, skipped = after, False
    return Gap(start, position, "tags", id3v2, skipped) if position > start else None


def _believed_end(data: Window, start: int, end: int, is_first: bool) -> int:
    """End of an ID3v2 tag that claims to end at `end`: before the first audio, if nothing known is at `end`."""
    after = data.skip_zeros(end) if end < data.end else end
    if tag_end(data, after) is not None or _format_of_run(data, after, LIKELY) is not None:
        return end
    if end == data.end and not is_first:
        return end
    for place in data.matches(SYNC, start, end, 2):
        frame_format = _format_of_run(data, place, SURE, free=False)
        # Pictures may hold headers by chance, but no long chain.
        if frame_format is not None and (
            chain_length(data, place, frame_format, CERTAIN) == CERTAIN
            or _run(data, place, frame_format).end >= min(end, data.end)
        ):
            return place
    return min(end, data.end)


def _unknown(data: Window, position: int, run: Run | None, limit: int) -> Gap:
    """The gap at `position`, up to sure frames, or a tag behind which something known follows."""
    # The last frame may be cut off, so that what follows begins inside of the bytes that its header claims.
    first = run.last + HEADER if run is not None and run.end == position else position
    free = run is not None and run.format.is_free  # looking for any would take long
    end = next((place for place in data.matches(ANYTHING, first, limit, 11) if _is_known(data, place, free)), limit)
    if end < position and run is not None:
        return Gap(run.last, end, "partial")
    if run is None:
        return Gap(position, end, "unknown")
    frame_format = format_at(data, position)
    if data.end - position < HEADER:
        return Gap(position, data.end, "partial")
    if frame_format is not None and frame_format.is_like(run.format):
        length = frame_length(data, position, frame_format)
        if position + length > data.end and end - position <= length:
            return Gap(position, end, "partial")
    return Gap(position, end, "unknown")


def _is_known(data: Window, position: int, free: bool) -> bool:
    if data.read(position, 1) == b"\xff":
        return _format_of_run(data, position, SURE, free) is not None
    end = tag_end(data, position)
    return end is not None and (end == data.end or _is_end(data, end))
