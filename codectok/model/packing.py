"""Packs: clips end to end in one sequence of samples, so that a clip's codes do not depend on its neighbours.

Only the mel window, the stem and the depthwise convolutions mix time, and their receptive fields are finite. So clips
are not padded into a rectangle. They are packed with gaps that no window can bridge, and the frames in gaps are set to
zero before every operation that mixes time: each clip sees the zero padding that it would see alone. A clip longer than
a pack is cut into chunks that overlap by twice the encoder's receptive field, and frames whose receptive field is cut
off are dropped. Mel frame t of a pack covers the samples from t * hop.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from codectok.config import CodecConfig
from codectok.errors import AudioError, InputError
from codectok.model.quantization.temporal import BLOCK_KERNEL_SIZE

Tag = TypeVar("Tag")

# Rows of a matrix product on a CPU: fewer rows are slower, more rows make a single short clip more expensive.
BLOCK_ROWS = 512
DEFAULT_PACK_FRAMES = 8192
# Packs that are filled at the same time, for encoders that need packs of one length.
OPEN_PACKS = 8


class PackGeometry:
    """Distances and sizes in a pack, in mel frames unless stated otherwise.

    Attributes:
        hop, window: hop length and length of the mel windows in samples.
        levels: mel frames per frame, before and after each downsampling of the quantizer.
        alignment: mel frames per code frame; clips and chunks start at multiples of it.
        gap: smallest distance between two clips.
        receptive_field: frames on each side that a frame's features depend on, rounded up to whole code frames.
        unit: the length of a pack is a multiple of this: BLOCK_ROWS code frames.
        pack_frames: length of a full pack.

    Args:
        config: configuration of the codec.
        pack_frames: desired length of a full pack, rounded up to a possible one.

    Raises:
        InputError: `pack_frames` is below 1.
    """

    def __init__(self, config: CodecConfig, pack_frames: int = DEFAULT_PACK_FRAMES) -> None:
        if pack_frames < 1:
            raise InputError(f"A pack must have at least 1 frame, not {pack_frames}.")
        self.config = config
        self.hop = config.mel.hop_length
        self.window = config.mel.n_fft
        self.levels = tuple(itertools.accumulate(config.quantizer.time_factors, initial=1, func=lambda a, b: a * b))
        self.alignment = self.levels[-1]
        # Frames on each side that one layer mixes.
        encoder_side, downsample_side = config.encoder.kernel_size // 2, BLOCK_KERNEL_SIZE // 2
        window_side = math.ceil((self.window - self.hop) / self.hop)
        self.gap = self.aligned(max(encoder_side, downsample_side * self.alignment, window_side))
        mixing_layers = 1 + sum(config.encoder.depths)
        self.receptive_field = self.aligned(encoder_side * mixing_layers + downsample_side * sum(self.levels[1:]))
        self.unit = BLOCK_ROWS * self.alignment
        self.pack_frames = math.ceil(max(pack_frames, 4 * self.receptive_field) / self.unit) * self.unit

    def aligned(self, frames: int) -> int:
        """Round `frames` up to whole code frames."""
        return math.ceil(frames / self.alignment) * self.alignment

    def n_samples(self, frames: int) -> int:
        """Number of samples that `frames` successive mel windows cover."""
        return (frames - 1) * self.hop + self.window


@dataclass(frozen=True)
class Chunk:
    """A clip, or a part of one that overlaps with its neighbours.

    Attributes:
        samples: float32 [n], all samples under its `n_frames` mel windows, including reflected edges.
        n_frames: number of mel frames.
        skip: code frames to drop at the start, which only complete the receptive field of the next ones.
        keep: code frames to keep after the skipped ones.
        last: True if the clip ends here.
    """

    samples: np.ndarray
    n_frames: int
    skip: int
    keep: int
    last: bool


def cut_into_chunks(blocks: Iterable[np.ndarray], geometry: PackGeometry) -> Iterator[Chunk]:
    """Cut a clip that arrives in `blocks` (mono float32 [n] at the codec's rate) into chunks that fit into a pack.

    Raises:
        AudioError: the blocks hold no samples.
    """
    cutter = _Cutter(geometry)
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.finish()


class _Cutter:
    """Holds the samples of a clip, with reflected edges, from the first frame of the next chunk.

    Every copy of the samples costs as much as half of the packing, so that blocks are joined only when they fill a
    chunk or the clip ends, with the edges in the same step.
    """

    def __init__(self, geometry: PackGeometry) -> None:
        self._geometry = geometry
        self._edge = geometry.config.mel.padding
        self._held = np.zeros(geometry.config.left_pad, np.float32)
        self._arrived: list[np.ndarray] = []
        self._n_arrived = 0
        self._n_samples = 0
        self._code_frames_done = 0
        self._has_left_edge = False

    def push(self, block: np.ndarray) -> Iterator[Chunk]:
        self._n_samples += len(block)
        self._n_arrived += len(block)
        if len(self._held) + self._n_arrived <= self._geometry.n_samples(self._geometry.pack_frames):
            # The caller may reuse the memory of the block.
            self._arrived.append(block.copy())
            return
        self._arrived.append(block)
        self._join()
        yield from self._inner_chunks()

    def finish(self) -> Iterator[Chunk]:
        if self._n_samples == 0:
            raise AudioError("The waveform has no samples.", "empty")
        config = self._geometry.config
        missing = config.min_samples - self._n_samples
        if missing > 0:
            self._arrived.append(np.zeros(missing, np.float32))
        self._join(at_end=True)
        yield from self._inner_chunks()
        yield self._take(self._frames(), config.n_frames(self._n_samples) - self._code_frames_done, last=True)

    def _inner_chunks(self) -> Iterator[Chunk]:
        size, receptive_field = self._geometry.pack_frames, self._geometry.receptive_field
        while self._frames() > size:
            kept = size - receptive_field - (receptive_field if self._code_frames_done else 0)
            yield self._take(size, kept // self._geometry.alignment, last=False)
            # The next chunk starts with the receptive field of its first kept frame.
            self._held = self._held[(size - 2 * receptive_field) * self._geometry.hop :]

    def _take(self, frames: int, keep: int, last: bool) -> Chunk:
        # No copy: nothing writes to the held samples.
        samples = self._held[: self._geometry.n_samples(frames)]
        skip = self._geometry.receptive_field // self._geometry.alignment if self._code_frames_done else 0
        self._code_frames_done += keep
        return Chunk(samples, frames, skip, keep, last)

    def _frames(self) -> int:
        return (len(self._held) - self._geometry.window) // self._geometry.hop + 1

    def _join(self, at_end: bool = False) -> None:
        """Append the arrived blocks, the left edge before the first ones, and `at_end` the right edge."""
        parts = [self._held, *self._arrived]
        self._arrived, self._n_arrived = [], 0
        if not self._has_left_edge:
            self._has_left_edge = True
            parts.insert(0, _first(parts, self._edge + 1)[:0:-1])
        if at_end:
            parts.append(_first([part[::-1] for part in reversed(parts)], self._edge + 1)[1:])
        self._held = np.concatenate(parts)


def _first(parts: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Return the first `count` samples of joined `parts`."""
    taken: list[np.ndarray] = []
    for part in parts:
        if count <= 0:
            break
        taken.append(part[:count])
        count -= len(taken[-1])
    return np.concatenate(taken)


@dataclass(frozen=True)
class Placement(Generic[Tag]):
    """Place of a chunk in a pack; `position` is its first code frame."""

    tag: Tag
    chunk: Chunk
    position: int


@dataclass(frozen=True)
class Pack(Generic[Tag]):
    """Chunks laid end to end.

    Attributes:
        samples: packed samples, float32 [n].
        gaps: for each level of the frame rate bool [frames], True for frames that belong to no chunk.
        placements: places of the chunks, in order.
    """

    samples: np.ndarray
    gaps: tuple[np.ndarray, ...]
    placements: tuple[Placement[Tag], ...]


def fill_packs(chunks: Iterable[tuple[Tag, Chunk]], geometry: PackGeometry, fixed_length: bool) -> Iterator[Pack[Tag]]:
    """Pack `chunks`, the chunks of one clip in their order.

    With `fixed_length` every pack has `pack_frames` frames, and a chunk goes into the fullest of several open packs in
    which it fits, to leave few frames empty. Otherwise a pack ends at the next multiple of `unit`, and the chunks are
    packed in their order.
    """
    # Only the last chunk of a clip is shorter than a pack, so that it cannot come before another one of its clip.
    open_packs = [_OpenPack[Tag](geometry)]
    n_open = OPEN_PACKS if fixed_length else 1
    for tag, chunk in chunks:
        fitting = [pack for pack in open_packs if pack.fits(chunk)]
        if not fitting:
            if len(open_packs) == n_open:
                fullest = max(open_packs, key=lambda pack: pack.end)
                open_packs.remove(fullest)
                yield _assemble(fullest.placements, geometry, fixed_length)
            fitting = [_OpenPack(geometry)]
            open_packs += fitting
        best = max(fitting, key=lambda pack: pack.end)
        best.add(tag, chunk)
        if best.is_full:
            open_packs.remove(best)
            yield _assemble(best.placements, geometry, fixed_length)
    for pack in open_packs:
        if pack.placements:
            yield _assemble(pack.placements, geometry, fixed_length)


class _OpenPack(Generic[Tag]):
    """Chunks of a pack that is not full.

    Attributes:
        placements: places of its chunks.
        end: first frame at which another chunk may start.
    """

    def __init__(self, geometry: PackGeometry) -> None:
        self._geometry = geometry
        self.placements: list[Placement[Tag]] = []
        self.end = 0

    @property
    def is_full(self) -> bool:
        return self.end >= self._geometry.pack_frames

    def fits(self, chunk: Chunk) -> bool:
        return not self.placements or self.end + chunk.n_frames <= self._geometry.pack_frames

    def add(self, tag: Tag, chunk: Chunk) -> None:
        self.placements.append(Placement(tag, chunk, self.end // self._geometry.alignment))
        self.end += self._geometry.aligned(chunk.n_frames) + self._geometry.gap


def _assemble(placements: list[Placement[Tag]], geometry: PackGeometry, fixed_length: bool) -> Pack[Tag]:
    used = placements[-1].position * geometry.alignment + placements[-1].chunk.n_frames
    frames = geometry.pack_frames if fixed_length else math.ceil(used / geometry.unit) * geometry.unit
    # Zeros between the chunks only: a pack of zeros would take as long as all its copies.
    samples = np.empty(geometry.n_samples(frames), np.float32)
    filled = 0
    gaps = tuple(np.ones(frames // level, bool) for level in geometry.levels)
    for placement in placements:
        start = placement.position * geometry.alignment
        chunk = placement.chunk
        first = start * geometry.hop
        samples[filled:first] = 0
        filled = first + len(chunk.samples)
        samples[first:filled] = chunk.samples
        for level, gap in zip(geometry.levels, gaps, strict=True):
            gap[start // level : start // level + chunk.n_frames // level] = False
    samples[filled:] = 0
    return Pack(samples, gaps, tuple(placements))
