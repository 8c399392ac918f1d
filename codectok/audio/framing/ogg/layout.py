"""Framing of Ogg files with Vorbis or Opus: pages are followed and packets timed, since headers may be wrong."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from typing import BinaryIO

from codectok.audio.framing.layout import Damage, Layout, Stream
from codectok.audio.framing.tags import end_of_id3v2, end_of_tags
from codectok.audio.framing.window import Window

from .links import ForeignStreamError, Link, links_of
from .pages import CAPTURE, LAST, page_at, page_crc, pages_from

# Encoders fill their last packets, and say so by the last granule position. More is not believed of a single page.
MOST_PADDING = 1 << 13
LONGEST_PACKET = 1 << 13  # samples; a packet has one byte or more


@dataclass(frozen=True)
class _Timing:
    """Positions of a link in time.

    Attributes:
        offset: granule position of its first sample.
        n_samples: samples that decoders return.
        complete: True if the link has its end.
        corrections: right granule positions by the offset of the page.
    """

    offset: int
    n_samples: int
    complete: bool
    corrections: dict[int, int]


def layout_of_ogg(file: BinaryIO) -> Layout | None:
    """Layout of an Ogg file, open at its start; None for other files, codecs but Vorbis and Opus, and multiplexes."""
    data = Window(file)
    start = end_of_id3v2(data, 0)
    if data.read(start, 4) != CAPTURE:
        return None
    streams: list[Stream] = []
    damage: Damage | None = None
    unused, unmarked_ends, duration = 0, 0, 0.0
    try:
        for link in links_of(pages_from(data, start), data.end):
            if not link.has_headers:
                raise ForeignStreamError(link.start)
            timing = _timing(link)
            seconds = timing.n_samples / (link.timer.sample_rate or 1)
            if damage is not None:
                damage = replace(damage, seconds=None if damage.seconds is None else damage.seconds + seconds)
                continue
            damage = _damage(link, timing)
            unmarked_ends += damage is None and not timing.complete
            unused += link.skipped
            unused += link.limit - end_of_tags(data, link.end, link.limit) if damage is None else 0
            duration += seconds
            if timing.n_samples > 0 or damage is None:
                streams.append(Stream(link.start, link.end, _patches(data, link, timing), seconds=seconds))
    except ForeignStreamError as foreign:
        if foreign.start == start:
            return None
        damage = replace(damage, seconds=None) if damage else Damage(_foreign(duration))
    if len(streams) == 1 and damage is None and not streams[0].patches:
        streams = [Stream(0, data.end, seconds=streams[0].seconds)]
    return Layout("OGG", tuple(streams), damage, unused, unmarked_ends=unmarked_ends)


def _foreign(seconds: float) -> str:
    return f"continues at {seconds:.2f} s with an Ogg stream that is not a whole one of Vorbis or Opus"


def _damage(link: Link, timing: _Timing) -> Damage | None:
    # Some writers never mark the last page; a file that is cut off hardly ever ends between two pages.
    if timing.complete or (not link.gap and link.end == link.limit):
        return None
    rate = link.timer.sample_rate or 1
    at = f"at {timing.n_samples / rate:.2f} s"
    total = max(link.totals[-1] if link.totals else 0, link.timer.pre_skip)
    missing = link.final_granule - timing.offset - total
    believable = 0 <= missing <= (link.limit - link.end) * LONGEST_PACKET
    seconds = missing / rate if link.final_granule >= 0 and believable and link.timed else None
    if link.gap:
        return Damage(f"is damaged {at}: Ogg pages are missing or unreadable there", seconds)
    return Damage(f"is cut off {at}: its last Ogg page is missing", seconds)


def _timing(link: Link) -> _Timing:
    """Compare the granule positions of a link with the durations of its packets."""
    starts, granules, totals = link.starts, link.granules, link.totals
    marked = link.ended and not link.gap
    if not totals or not link.timed:
        return _Timing(0, max(0, granules[-1]) if granules else 0, marked, {})
    n = len(totals)
    if n > 1 and totals[-1] == totals[-2] and granules[-1] == granules[-2]:
        n -= 1  # an empty last page repeats the position of the one before
    # The last granule position may leave out samples of the last page. A page that does so is the last one, even if it
    # is not marked as such.
    offset = _offset(granules, totals, n - 1)
    padding = offset + totals[n - 1] - granules[n - 1]
    n_samples = totals[-1] - link.timer.pre_skip
    padded = 0 <= padding <= (totals[n - 1] - totals[n - 2] if n > 1 else min(MOST_PADDING, n_samples))
    complete = marked or (padded and padding > 0 and not link.gap and link.final_granule < 0)
    inner = n - 1 if padded and complete else n
    # libsndfile skips samples of an Opus stream that begins late, so it is made to begin at 0.
    base = 0 if link.timer.pre_skip else offset
    right = [base + total for total in totals[:inner]] + [granule - offset + base for granule in granules[inner:]]
    pages = zip(starts, granules, right, strict=True)
    corrections = {start: granule for start, claimed, granule in pages if claimed != granule}
    return _Timing(offset, max(0, n_samples - padding if padded and complete else n_samples), complete, corrections)


def _offset(granules: array[int], totals: array[int], n: int) -> int:
    """Granule position of the first sample: 0 if it fits the first page, or by the majority of the first `n` pages."""
    if n == 0 or granules[0] == totals[0]:
        return 0
    offset, votes = 0, 0
    for granule, total in zip(granules[:n], totals[:n], strict=True):
        if votes == 0:
            offset = granule - total
        votes += 1 if granule - total == offset else -1
    agreeing = sum(granule - total == offset for granule, total in zip(granules[:n], totals[:n], strict=True))
    # Encoders of Vorbis may drop samples of the first page, which makes the offset negative.
    return offset if 2 * agreeing > n and (offset >= 0 or -offset < totals[0]) else 0


def _patches(data: Window, link: Link, timing: _Timing) -> tuple[tuple[int, bytes], ...]:
    """Headers of pages with corrected marks, serial numbers, granule positions and CRCs."""
    patches = []
    unmarked = link.starts[-1:] if timing.complete and not link.ended else []
    for start in sorted({*timing.corrections, *link.wrong_marks, *unmarked}):
        page = page_at(data, start)
        assert page is not None, "the page was read before"
        corrected = bytearray(data.read(start, page.end - page.start))
        corrected[5] = corrected[5] & ~LAST | (LAST if page.end == link.end and timing.complete else 0)
        corrected[6:14] = timing.corrections.get(start, page.granule).to_bytes(8, "little", signed=True)
        corrected[14:18] = link.serial.to_bytes(4, "little")
        corrected[22:26] = page_crc(bytes(corrected))
        patches.append((start, bytes(corrected[:26])))
    return tuple(patches)
