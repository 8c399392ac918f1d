"""Chunks: parts of a file that begin with their name and size."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from codectok.audio.framing.magic import begins_file

MAX_CHUNKS = 10_000  # in one file, so that a damaged one is not searched for hours
MAX_POSITION = 1 << 62
MAX_TRIES, MAX_TRAILERS = 200, 64
TRAILER_BYTES = 1 << 20
# Chunks that programs write behind the samples.
TRAILERS = (
    b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"_PMX", b"axml", b"chna", b"cue ", b"smpl", b"inst", b"plst", b"acid",
    b"fact", b"PEAK", b"peak", b"afsp", b"JUNK", b"junk", b"PAD ", b"FLLR", b"free", b"cart", b"levl", b"link", b"minf",
    b"elm1", b"umid", b"info", b"uuid", b"strg", b"mark", b"regn", b"MARK", b"INST", b"COMT", b"NAME", b"AUTH", b"ANNO",
    b"(c) ", b"APPL", b"MIDI", b"AESD", b"FVER", b"basc", b"trns",
)  # fmt: skip


@dataclass(frozen=True)
class Chunk:
    """A chunk of a file.

    Attributes:
        name: four bytes.
        start: offset of its contents.
        size: of its contents in bytes, as its header states it; negative if that is impossible.
    """

    name: bytes
    start: int
    size: int


@dataclass(frozen=True)
class ChunkFormat:
    """How a container writes its chunks.

    Attributes:
        header: name and size.
        padding: each chunk begins at a multiple of this number.
        suffixes: ends of the names that have more than four bytes.
        counts_header: True if the size includes the header.
    """

    header: struct.Struct
    padding: int = 2
    suffixes: tuple[bytes, ...] = ()
    counts_header: bool = False

    def read(self, file: BinaryIO, position: int) -> Chunk | None:
        """Return the chunk that begins at `position`; None if none does."""
        if position >= MAX_POSITION:
            return None
        file.seek(position)
        data = file.read(self.header.size)
        if len(data) < self.header.size:
            return None
        name, size = self.header.unpack(data)
        size -= self.header.size if self.counts_header else 0
        is_name = name.endswith(self.suffixes) if self.suffixes else all(0x20 <= byte < 0x7F for byte in name)
        if not is_name or begins_file(data + file.read(self.header.size)):
            return None
        return Chunk(name[:4], position + self.header.size, size)

    def walk(self, file: BinaryIO, position: int) -> Iterator[Chunk]:
        """Yield the chunks from `position` on; a chunk with a size beyond the end of the file is the last one."""
        for _ in range(MAX_CHUNKS):
            # Some programs forget the padding.
            padded = position + -position % self.padding
            chunk = self.read(file, padded) or self.read(file, position)
            if chunk is None:
                return
            yield chunk
            if chunk.size < 0:
                return
            position = chunk.start + chunk.size

    def end_of_chunks(self, file: BinaryIO, position: int, size: int) -> int:
        """Return the end of the whole chunks from `position` on; `position` itself if there are none.

        A chunk with a usual name that is cut off counts, too.
        """
        for chunk in self.walk(file, position):
            end = chunk.start + chunk.size
            if chunk.size < 0 or (end > size and chunk.name not in TRAILERS):
                break
            position = min(end, size)
        return size if size - position < self.padding else position

    def first_of_chunks(self, file: BinaryIO, start: int, size: int) -> int:
        """Return the start of the chunks at the end of a file with samples from `start` to `size`; `size` if none.

        Only chunks with usual names that end where the file ends are certain.
        """
        first = max(start, size - TRAILER_BYTES)
        file.seek(first)
        data = file.read(size - first)
        places = sorted(first + place for name in TRAILERS for place in _places(data, name))
        for place in places[-MAX_TRIES:]:
            end = place
            for chunk in islice(self.walk(file, place), MAX_TRAILERS):
                end = chunk.start + chunk.size
                if end >= size - self.padding:
                    break
            if size - self.padding < end <= size:
                return place
        return size


def _places(data: bytes, name: bytes) -> list[int]:
    places: list[int] = []
    place = data.find(name)
    while place >= 0 and len(places) <= MAX_TRIES:
        places.append(place)
        place = data.find(name, place + 1)
    return places
