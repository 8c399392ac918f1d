"""Walking over the links of an Ogg file: logical streams that follow one another."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from .codecs import PacketTimer, packet_timer
from .pages import CONTINUED, FIRST, LAST, NO_GRANULE, Page

SEQUENCES = 1 << 32
PACKET_HEAD = 2  # bytes of a packet that tell its duration


class ForeignStreamError(Exception):
    """A stream that is neither Opus nor Vorbis, or is multiplexed with others, at offset `start`."""

    def __init__(self, start: int) -> None:
        super().__init__(start)
        self.start = start


@dataclass
class Link:
    """A logical stream, up to its end or its first gap.

    Attributes:
        start: offset of its first page.
        serial: number of the logical stream.
        timer: durations of its packets.
        end: offset behind its last page.
        limit: offset of the next link, or of the end of the file.
        starts, granules, totals: of each page on which audio packets end, and of an empty last page: its offset,
            its granule position, and the samples of all packets up to its end.
        timed: False if the durations of packets are unknown.
        ended: True if the last page is marked as such.
        gap: True if pages are missing behind `end`.
        final_granule: last granule position behind the gap; -1 if there is none.
        wrong_marks: offsets of pages with a wrong serial number, or marked as the last one while others follow.
        skipped: bytes between pages.
    """

    start: int
    serial: int
    timer: PacketTimer
    end: int
    limit: int = 0
    starts: array[int] = field(default_factory=lambda: array("q"))
    granules: array[int] = field(default_factory=lambda: array("q"))
    totals: array[int] = field(default_factory=lambda: array("q"))
    timed: bool = True
    ended: bool = False
    gap: bool = False
    final_granule: int = NO_GRANULE
    wrong_marks: list[int] = field(default_factory=list)
    skipped: int = 0
    n_packets: int = 0

    @property
    def has_headers(self) -> bool:
        """True if all header packets were read."""
        return self.n_packets >= self.timer.n_headers


def links_of(pages: Iterator[Page], size: int) -> Iterator[Link]:
    """Yield the links of a file with `size` bytes.

    Raises:
        ForeignStreamError: libsndfile does not read the file, or would take one of several streams.
    """
    page = next(pages, None)
    while page is not None:
        walker = _LinkWalker(page)
        page = walker.run(pages, size)
        yield walker.link


class _LinkWalker:
    def __init__(self, first: Page) -> None:
        timer = packet_timer(first.body)
        if timer is None or not first.whole or not first.flags & FIRST:
            raise ForeignStreamError(first.start)
        self.link = Link(first.start, first.serial, timer, first.end)
        self._sequence = first.sequence
        self._last_start = first.start
        self._packet = b""  # begin of the packet that continues on the next page
        self._total = 0
        self._alone = True  # no other page yet
        self._read_packets(first)

    def run(self, pages: Iterator[Page], size: int) -> Page | None:
        """Walk to the next link, and return its first page; None at the end of the file."""
        link = self.link
        for page in pages:
            if page.whole and page.flags & FIRST:
                if self._alone:
                    raise ForeignStreamError(link.start)
                link.limit = page.start
                return page
            self._alone = self._alone and not page.whole
            follows = page.sequence == (self._sequence + 1) % SEQUENCES
            if page.serial != link.serial and not (follows and page.whole):
                continue  # of no stream that begins in the file
            if link.gap or not page.whole:
                # A broken page still tells the time of its end, if it follows.
                if page.granule >= 0 and (page.whole or follows):
                    link.final_granule = page.granule
            elif follows or self._starts_late(page):
                self._append(page)
            else:
                link.gap, link.final_granule = True, page.granule
        link.limit = size
        return None

    def _starts_late(self, page: Page) -> bool:
        """Return True if `page` is the first one with audio, as of a piece of a live stream."""
        return self.link.n_packets == self.link.timer.n_headers and page.start == self.link.end

    def _append(self, page: Page) -> None:
        link = self.link
        if link.ended:
            link.wrong_marks.append(self._last_start)
        if page.serial != link.serial:
            link.wrong_marks.append(page.start)
        link.skipped += page.start - link.end
        link.end, link.ended = page.end, bool(page.flags & LAST)
        self._sequence, self._last_start = page.sequence, page.start
        link.final_granule = NO_GRANULE
        # A last page may be empty, and have a granule position.
        if self._read_packets(page) or (link.ended and page.granule != NO_GRANULE and link.totals):
            link.starts.append(page.start)
            link.granules.append(page.granule)
            link.totals.append(self._total)

    def _read_packets(self, page: Page) -> bool:
        """Add up the packets that end on `page`, and return True if one of them is audio."""
        link, timer, body, offset, audio = self.link, self.link.timer, page.body, 0, False
        continued = bool(page.flags & CONTINUED)
        lost = continued and not self._packet  # the rest of a packet whose begin is missing
        packet = self._packet if continued else b""
        begun = 0
        for size in page.lacing:
            offset += size
            if size == 255:
                continue
            if lost:
                lost = False
            elif link.n_packets < timer.n_headers:
                timer.header(link.n_packets, packet + body[begun:offset])
                link.n_packets += 1
            else:
                head = packet if len(packet) >= PACKET_HEAD else packet + body[begun : min(offset, begun + PACKET_HEAD)]
                duration = timer.duration(head)
                link.timed = link.timed and duration is not None
                self._total += duration or 0
                link.n_packets += 1
                audio = True
            packet, begun = b"", offset
        rest = body[begun:]
        if link.n_packets >= timer.n_headers:
            rest = rest[:PACKET_HEAD]
        self._packet = b"" if lost else (packet + rest if page.lacing and page.lacing[-1] == 255 else b"")
        return audio
