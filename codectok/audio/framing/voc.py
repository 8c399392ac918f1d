"""Framing of Creative Voice files (VOC)."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import BinaryIO

from .layout import Damage, Layout, Stream
from .magic import HEADER, MAX_CHANNELS, VOC_MAGIC, begins_file
from .samples import SampleData, layout_of_samples

FILE_HEADER, FIRST_BLOCK = 26, 20  # length of the header, and its field for the first block
BLOCK_HEADER = 4
END, SOUND, CONTINUATION, SILENCE, LAST_IGNORED, EXTENDED, NEW_SOUND = 0, 1, 2, 3, 7, 8, 9
PARAMETER_BYTES = {SOUND: 2, NEW_SOUND: 12}
SIZE_LIMIT = 1 << 24
SOX_ERROR = 8  # bytes that sox forgets in the size of a block
MAX_BLOCKS = 1_000_000  # some programs write a block for every 4 kB


@dataclass
class _Run:
    """Blocks of one format that follow one another.

    Attributes:
        kind: number of the first block.
        parameters: of the first block, with those of an extended block before it.
        parts: start and end of the samples in each block.
    """

    kind: int
    parameters: bytes
    parts: list[tuple[int, int]] = field(default_factory=list)

    @property
    def new_parameters(self) -> bytes:
        """Parameters of a block of the newest kind."""
        if self.kind == NEW_SOUND:
            return self.parameters
        if len(self.parameters) > PARAMETER_BYTES[SOUND]:  # an extended block decides
            divisor, codec, mode = struct.unpack_from("<HBB", self.parameters)
            sample_rate = 256_000_000 // (65_536 - divisor) // (mode + 1)
        else:
            divisor, codec, mode = *self.parameters, 0
            sample_rate = 1_000_000 // (256 - divisor)
        return struct.pack("<IBBHI", sample_rate, 8, mode + 1, codec, 0)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.new_parameters[5]

    @property
    def frame(self) -> int:
        """Bytes of one sample of all channels."""
        return max(1, self.new_parameters[4] // 8 * self.channels)

    @property
    def bytes_per_second(self) -> int:
        """Bytes of one second."""
        return self.frame * int.from_bytes(self.new_parameters[:4], "little")

    def stream(self, file_header: bytes, last: int) -> Stream:
        """Return the stream of the samples, of which the last block has `last` bytes."""
        parts = [*self.parts[:-1], (self.parts[-1][0], self.parts[-1][0] + last)]
        n_bytes = sum(end - start for start, end in parts) + PARAMETER_BYTES[NEW_SOUND]
        size = struct.pack("<I", min(n_bytes, SIZE_LIMIT - 1))[:3]
        head = file_header[:FIRST_BLOCK] + struct.pack("<H", FILE_HEADER) + file_header[FIRST_BLOCK + 2 :]
        head += bytes([NEW_SOUND]) + size + self.new_parameters
        holes = tuple((before[1], after[0]) for before, after in pairwise(parts))
        return Stream(parts[0][0], parts[-1][1], head=head, holes=holes)


def layout_of_voc(file: BinaryIO) -> Layout | None:
    """Layout of a VOC file, open at its start; None for other files.

    libsndfile takes the headers of all blocks but the first for samples, so that it is shown the samples only.
    """
    header = file.read(FILE_HEADER)
    if not header.startswith(VOC_MAGIC) or len(header) < FILE_HEADER:
        return None
    size = file.seek(0, os.SEEK_END)
    runs, position, damage = _runs(file, int.from_bytes(header[FIRST_BLOCK : FIRST_BLOCK + 2], "little"), size)
    if not runs:
        return Layout("VOC", (), damage) if damage is not None else None
    run = runs[-1]
    if not 0 < run.channels <= MAX_CHANNELS:
        return Layout("VOC", (), Damage(f"has an impossible number of {run.channels} channels", None, "unreadable"))
    earlier = tuple(one.stream(header, one.parts[-1][1] - one.parts[-1][0]) for one in runs[:-1])
    start, end = run.parts[-1]
    if damage is not None:
        return Layout("VOC", (*earlier, run.stream(header, end - start)), damage)
    simple = len(runs) == len(run.parts) == 1
    # Sizes have 24 bits, and a longer file that was written in one block ends where they begin again at 0.
    is_longer = simple and (size - end) // SIZE_LIMIT > 0 and (size - end) % SIZE_LIMIT < 2
    file.seek(position)
    if simple and size - position > end - start and not begins_file(file.read(HEADER)):
        position = end  # a header that was written before the samples
    samples = SampleData(
        container="VOC",
        start=start,
        stated=None if end <= start or is_longer else end - start,
        block=run.frame,
        bytes_per_second=run.bytes_per_second,
        stream=lambda n_bytes: run.stream(header, n_bytes),
        end_of_chunks=lambda _file, _position, _size: position,
        size_limit=SIZE_LIMIT,
        whole=simple and (run.kind == NEW_SOUND or size == end + 1),  # others need an end mark, and nothing behind it
        stops=run.kind == SOUND,  # libsndfile takes the end mark of others for a sample
    )
    layout = layout_of_samples(file, samples)
    return replace(layout, streams=(*earlier, *layout.streams))


def _runs(file: BinaryIO, position: int, size: int) -> tuple[list[_Run], int, Damage | None]:
    """Return the runs of sound blocks from `position` on, the end of all blocks, and why sound after it is lost."""
    runs: list[_Run] = []
    extended = b""
    for _ in range(MAX_BLOCKS):
        file.seek(position)
        header = file.read(BLOCK_HEADER)
        if header[:1] == b"\x00":
            return runs, position + 1, None
        if len(header) < BLOCK_HEADER or header[0] > NEW_SOUND:
            return runs, position, None
        kind, start = header[0], position + BLOCK_HEADER
        end = start + int.from_bytes(header[1:], "little")
        if kind == SILENCE:
            message = "has a block of silence, which is not supported in a VOC file; convert it to WAV first"
            return runs, position, Damage(message, None, "unsupported")
        if kind in PARAMETER_BYTES:
            parameters = file.read(PARAMETER_BYTES[kind])
            if len(parameters) < PARAMETER_BYTES[kind]:
                return runs, position, None
            first = start + len(parameters)
            if kind == NEW_SOUND and not _is_last(file, end, size) and _is_last(file, end + SOX_ERROR, size):
                end += SOX_ERROR
            run = _Run(kind, extended + parameters)
            if not runs or (runs[-1].kind, runs[-1].parameters) != (kind, run.parameters):
                runs.append(run)
            runs[-1].parts.append((first, max(first, end)))
            extended = b""
        elif kind == CONTINUATION and runs:
            runs[-1].parts.append((start, end))
        elif kind == EXTENDED and end - start == BLOCK_HEADER:
            extended = file.read(BLOCK_HEADER)
        elif kind > LAST_IGNORED or end > size:
            return runs, position, None
        if end > size or (end <= start and kind in PARAMETER_BYTES):
            return runs, position, None
        position = end
    return runs, position, Damage(f"has more than {MAX_BLOCKS:,} blocks", None, "unsupported")


def _is_last(file: BinaryIO, end: int, size: int) -> bool:
    """Return True if a block that ends at `end` is the last one of its file."""
    file.seek(end)
    mark = file.read(1)
    return mark == b"\x00" and (end + 1 == size or begins_file(file.read(HEADER)))
