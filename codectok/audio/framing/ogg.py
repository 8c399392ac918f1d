"""Framing of Ogg files with Vorbis or Opus: pages are followed and packets timed, since headers may be wrong."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from typing import BinaryIO

from .layout import Damage, Layout, Stream
from .ogg_links import ForeignStream, Link, links_of
from .ogg_pages import CAPTURE, LAST, page_at, page_crc, pages_from
from .scan import Scanner
from .tags import end_of_id3v2, end_of_tags

# Encoders fill their last packets, and say so by the last granule position. More is not believed of a single page.
MOST_PADDING = 1 << 13


@dataclass(frozen=True)
class _Timing:
    """Positions of a link in time.

    Attributes:
        offset: granule position of its first sample.
        n_samples: samples that decoders return.
        corrections: right granule positions by the offset of the page.
    """

    offset: int
    n_samples: int
    corrections: dict[int, int]


def layout_of_ogg(file: BinaryIO) -> Layout | None:
    """Layout of an Ogg file, open at its start; None for other files, codecs but Vorbis and Opus, and multiplexes."""
    scanner = Scanner(file)
    start = end_of_id3v2(scanner, 0)
    if scanner.peek(start, 4) != CAPTURE:
        return None
    streams: list[Stream] = []
    damage: Damage | None = None
    unused = 0
    try:
        for link in links_of(pages_from(scanner, start), scanner.size):
            if not link.has_headers:
                return Layout("OGG", (Stream(0, scanner.size),)) if not streams else None
            timing = _timing(link)
            seconds = timing.n_samples / (link.timer.sample_rate or 1)
            if damage is not None:
                damage = replace(damage, seconds=None if damage.seconds is None else damage.seconds + seconds)
                continue
            damage = _damage(link, timing)
            unused += link.skipped
            unused += link.limit - end_of_tags(scanner, link.end, link.limit) if damage is None else 0
            if timing.n_samples > 0 or damage is None:
                streams.append(Stream(link.start, link.end, _patches(scanner, link, timing), seconds=seconds))
    except ForeignStream:
        return None
    if len(streams) == 1 and damage is None and not streams[0].patches:
        streams = [Stream(0, scanner.size, seconds=streams[0].seconds)]
    return Layout("OGG", tuple(streams), damage, unused)


def _damage(link: Link, timing: _Timing) -> Damage | None:
    if link.ended and not link.gap:
        return None
    rate = link.timer.sample_rate or 1
    at = f"at {timing.n_samples / rate:.2f} s"
    missing = link.final_granule - timing.offset - (link.totals[-1] if link.totals else 0)
    seconds = missing / rate if link.final_granule >= 0 and missing >= 0 and link.timed else None
    if link.gap:
        return Damage(f"is damaged {at}: Ogg pages are missing or unreadable there", seconds)
    return Damage(f"is cut off {at}: its last Ogg page is missing", seconds)


def _timing(link: Link) -> _Timing:
    """Compare the granule positions of a link with the durations of its packets."""
    starts, granules, totals = link.starts, link.granules, link.totals
    if not totals:
        return _Timing(0, 0, {})
    ended = link.ended and not link.gap
    inner = len(totals) - 1 if ended else len(totals)
    if not link.timed:
        return _Timing(0, max(0, granules[-1]), {})
    offset = _offset(granules, totals, inner)
    corrections = {
        starts[index]: offset + totals[index] for index in range(inner) if granules[index] != offset + totals[index]
    }
    n_samples = totals[-1] - link.timer.pre_skip
    if ended:
        padding = offset + totals[-1] - granules[-1]
        most = totals[-1] - totals[-2] if len(totals) > 1 else min(MOST_PADDING, n_samples)
        if 0 <= padding <= most:
            n_samples -= padding
        else:
            corrections[starts[-1]] = offset + totals[-1]
    return _Timing(offset, max(0, n_samples), corrections)


def _offset(granules: array[int], totals: array[int], n: int) -> int:
    """Granule position of the first sample, by the majority of the first `n` pages; 0 without one."""
    offset, votes = 0, 0
    for granule, total in zip(granules[:n], totals[:n], strict=True):
        if votes == 0:
            offset = granule - total
        votes += 1 if granule - total == offset else -1
    agreeing = sum(granule - total == offset for granule, total in zip(granules[:n], totals[:n], strict=True))
    # Encoders of Vorbis may drop samples of the first page, which makes the offset negative.
    return offset if 2 * agreeing > n and (offset >= 0 or -offset < totals[0]) else 0


def _patches(scanner: Scanner, link: Link, timing: _Timing) -> tuple[tuple[int, bytes], ...]:
    """Headers of pages with corrected marks, serial numbers, granule positions and CRCs."""
    patches = []
    for start in sorted({*timing.corrections, *link.wrong_marks}):
        page = page_at(scanner, start)
        assert page is not None, "the page was read before"
        data = bytearray(scanner.peek(start, page.end - page.start))
        if start in link.wrong_marks and page.end != link.end:
            data[5] &= ~LAST
        data[6:14] = timing.corrections.get(start, page.granule).to_bytes(8, "little", signed=True)
        data[14:18] = link.serial.to_bytes(4, "little")
        data[22:26] = page_crc(bytes(data))
        patches.append((start, bytes(data[:26])))
    return tuple(patches)
