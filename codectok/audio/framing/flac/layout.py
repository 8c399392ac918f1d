"""Framing of FLAC files: frames are counted, since headers may be wrong, and files may be cut or joined."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import BinaryIO

from codectok.audio.framing.layout import Damage, Layout, Stream
from codectok.audio.framing.tags import end_of_id3v2, end_of_tags
from codectok.audio.framing.window import WINDOW, Window

from .frames import INFO_SIZE, LONGEST_HEADER, FrameHeader, StreamInfo, frame_header
from .walk import MARKER, marker_at, next_marker, walk_frames

INFO_START = 8  # behind the marker and the header of the block
BLOCKS_START = INFO_START + INFO_SIZE  # of the other blocks
BLOCK_HEADER = 4
LONGEST_BLOCK = (1 << 24) - 1
PADDING = 1
LAST = 0x80


@dataclass(frozen=True)
class _Part:
    """A stream, the damage behind it, and the offset of the next stream or of the end of the file."""

    stream: Stream | None
    damage: Damage | None
    seconds: float
    limit: int
    unused_bytes: int = 0


def layout_of_flac(file: BinaryIO) -> Layout | None:
    """Layout of a FLAC file, open at its start; None for other files."""
    data = Window(file)
    first = _first_marker(data)
    if first is None:
        return None
    parts = [_part(data, first)]
    while parts[-1].limit < data.end:
        parts.append(_part(data, parts[-1].limit))
    sound = len(parts) == 1 and parts[0].stream and not parts[0].stream.patches and not parts[0].damage
    if sound and first in (0, end_of_id3v2(data, 0)) and parts[0].stream:
        parts = [replace(parts[0], stream=replace(parts[0].stream, start=0, end=data.end))]
    damaged = next((index for index, part in enumerate(parts) if part.damage), len(parts))
    streams = tuple(part.stream for part in parts[: damaged + 1] if part.stream)
    damage = parts[damaged].damage if damaged < len(parts) else None
    if damage is not None and damage.seconds is not None:
        damage = replace(damage, seconds=damage.seconds + sum(part.seconds for part in parts[damaged + 1 :]))
    return Layout("FLAC", streams, damage, sum(part.unused_bytes for part in parts))


def _first_marker(data: Window) -> int | None:
    """Offset of the first stream, at the start or behind an ID3v2 tag, whose length may be wrong."""
    if data.read(0, 4) == MARKER:
        return 0
    end = end_of_id3v2(data, 0)
    behind = data.read(end, 4)
    if end == 0 or behind[:1] == b"\xff":
        return None
    if behind == MARKER:
        return end
    found = data.find(MARKER, 10, end + WINDOW)
    return found if found >= 0 and marker_at(data, found) else None


def _part(data: Window, start: int) -> _Part:
    info = StreamInfo(data.read(start + INFO_START, INFO_SIZE))
    if len(info.data) < INFO_SIZE:
        return _Part(Stream(start, data.end), None, 0.0, data.end)
    blocks_end = _end_of_blocks(data, start)
    found = _first_frame(data, start, blocks_end, info)
    if found is None:
        return _without_frames(data, start, min(blocks_end, data.end), info)
    position, first = found
    walk = walk_frames(data, position, first, info.block_size)
    rate = first.sample_rate or info.sample_rate or 1
    claimed = info.n_samples
    if walk.first_sample > 0 and claimed >= walk.first_sample + walk.n_numbered:
        claimed -= walk.first_sample  # the last piece of a recording in pieces claims the length of all
    total = claimed if claimed > walk.n_numbered and not walk.complete else walk.n_numbered
    n_samples = walk.n_samples
    # A piece of a live stream just begins with a late frame, with nothing before it.
    headless = first.number > 0 and position != blocks_end
    if headless:
        n_samples, total = 0, total + walk.first_sample
    damage = _damage(n_samples, total, rate, walk.lost or headless)
    unused = walk.limit - end_of_tags(data, walk.end, walk.limit) if damage is None else 0
    if n_samples == 0:
        return _Part(None, damage, total / rate, walk.limit)
    patches = _patches(start, position, blocks_end, info, info.corrected(first, n_samples))
    end = walk.end if walk.lost else walk.limit
    stream = Stream(start, end, patches, n_samples, seconds=n_samples / rate)
    return _Part(stream, damage, total / rate, walk.limit, unused)


def _damage(n_samples: int, total: int, rate: int, lost: bool) -> Damage | None:
    if n_samples >= total:
        return None
    if lost:
        message = f"is damaged at {n_samples / rate:.2f} s: FLAC frames are missing or unreadable there"
    else:
        message = f"is cut off: it has {n_samples} of {total} samples"
    return Damage(message, (total - n_samples) / rate)


def _without_frames(data: Window, start: int, position: int, info: StreamInfo) -> _Part:
    limit = next_marker(data, position, data.end)
    limit = limit if limit >= 0 else data.end
    if not info.n_samples or not info.sample_rate:
        return _Part(Stream(start, limit), None, 0.0, limit)
    seconds = info.n_samples / info.sample_rate
    return _Part(None, Damage(f"is cut off: it has 0 of {info.n_samples} samples", seconds), seconds, limit)


def _end_of_blocks(data: Window, start: int) -> int:
    """Offset behind the metadata blocks, by their lengths."""
    position, last = start + 4, False
    while not last and position < data.end:
        header = data.read(position, BLOCK_HEADER)
        last = bool(header[0] & LAST)
        position += BLOCK_HEADER + int.from_bytes(header[1:], "big")
    return position


def _first_frame(data: Window, start: int, blocks_end: int, info: StreamInfo) -> tuple[int, FrameHeader] | None:
    """Offset and header of the first frame; it is searched if the lengths of the metadata blocks are wrong."""
    header = frame_header(data.read(blocks_end, LONGEST_HEADER))
    if header:
        return blocks_end, header
    # The frame 0 may begin before the end by these lengths, later ones only count behind it.
    found = _search_frame(data, start + BLOCKS_START, info, first=True)
    return found or _search_frame(data, min(blocks_end, data.end), info, first=False)


def _search_frame(data: Window, position: int, info: StreamInfo, first: bool) -> tuple[int, FrameHeader] | None:
    limit = next_marker(data, position, data.end)
    limit = limit if limit >= 0 else data.end
    for sync in (b"\xff\xf8", b"\xff\xf9"):  # fixed and variable block sizes
        at = position
        while (at := data.find(sync, at, limit)) >= 0:
            header = frame_header(data.read(at, LONGEST_HEADER))
            if header and (header.number == 0 or not first) and _agree(header, info):
                return at, header
            at += 1
    return None


def _agree(frame: FrameHeader, info: StreamInfo) -> bool:
    """Return True if a frame has the format that STREAMINFO says."""
    same_rate, same_bits = frame.sample_rate in (0, info.sample_rate), frame.bits in (0, info.bits)
    return frame.channels == info.channels and same_rate and same_bits


def _patches(
    start: int, position: int, blocks_end: int, info: StreamInfo, corrected: StreamInfo
) -> tuple[tuple[int, bytes], ...]:
    patches = [(start + INFO_START, corrected.data)] if corrected != info else []
    if position != blocks_end:
        # All blocks behind STREAMINFO become padding up to the first frame.
        at = start + BLOCKS_START
        patches.append((start + 4, bytes([LAST if at == position else 0])))
        while at + BLOCK_HEADER <= position:
            length = min(position - at - BLOCK_HEADER, LONGEST_BLOCK)
            last = LAST if at + BLOCK_HEADER + length == position else 0
            patches.append((at, bytes([PADDING | last]) + length.to_bytes(3, "big")))
            at += BLOCK_HEADER + length
    return tuple(patches)
