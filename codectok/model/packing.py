"""Packs: clips end to end on one tape of samples, so that no clip's codes depend on what is encoded with it.

Only the mel's window, the stem and the depthwise convolutions mix time, and their reach is finite. So clips are not
padded into a rectangle. They lie on a tape, far enough apart that no window touches two of them, and the frames
between them are set to zero before every operation that mixes time: each clip sees the zero padding that it would see
alone. A clip that is longer than a tape is cut into pieces that overlap by twice the encoder's reach, and the frames
that see a wrong neighbourhood are dropped. A frame of the mel at position t of a pack has the samples from t * hop on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from codectok.config import CodecConfig
from codectok.errors import AudioError, InputError
from codectok.model.quantization.temporal import BLOCK_KERNEL_SIZE

Tag = TypeVar("Tag")

# Rows of a product on a CPU: fewer are slower, more make a short clip alone dearer.
BLOCK_ROWS = 512
DEFAULT_PACK_FRAMES = 8192


class PackGeometry:
    """Distances and sizes on the tape, in frames of the mel unless said otherwise.

    Attributes:
        hop, window: distance and length of the mel's windows in samples.
        levels: frames of the mel per frame, before and after each of the quantizer's changes of the frame rate.
        alignment: clips and pieces start at multiples of this, the frames of the mel per frame of codes.
        gap: least distance between two clips.
        context: frames on each side of a piece whose features are wrong unless the clip ends there.
        unit: every pack has a multiple of this, which is BLOCK_ROWS frames of codes.
        pack_frames: length of a full pack.

    Args:
        config: of the codec.
        pack_frames: desired length, rounded up to what is possible.
    """

    def __init__(self, config: CodecConfig, pack_frames: int = DEFAULT_PACK_FRAMES) -> None:
        if pack_frames < 1:
            raise InputError(f"A pack must have at least 1 frame, not {pack_frames}.")
        self.config = config
        self.hop = config.mel.hop_length
        self.window = config.mel.n_fft
        self.levels = tuple(itertools.accumulate(config.quantizer.time_factors, initial=1, func=lambda a, b: a * b))
        self.alignment = self.levels[-1]
        reach, downsample_reach = config.encoder.kernel_size // 2, BLOCK_KERNEL_SIZE // 2
        window_reach = math.ceil((self.window - self.hop) / self.hop)
        self.gap = self.aligned(max(reach, downsample_reach * self.alignment, window_reach))
        mixing_layers = 1 + sum(config.encoder.depths)
        self.context = self.aligned(reach * mixing_layers + downsample_reach * sum(self.levels[1:]))
        self.unit = BLOCK_ROWS * self.alignment
        self.pack_frames = math.ceil(max(pack_frames, 4 * self.context) / self.unit) * self.unit

    def aligned(self, frames: int) -> int:
        """`frames` rounded up to whole frames of codes."""
        return math.ceil(frames / self.alignment) * self.alignment

    def tape_samples(self, frames: int) -> int:
        """Samples under `frames` successive windows."""
        return (frames - 1) * self.hop + self.window


@dataclass(frozen=True)
class Piece:
    """A clip, or a part of one with its context.

    Attributes:
        samples: float32, those under the windows of its `n_frames` frames of the mel, reflected edges included.
        n_frames: frames of the mel.
        skip: frames of codes at the start that are context.
        keep: frames of codes after them that count.
        last: whether the clip ends here.
    """

    samples: np.ndarray
    n_frames: int
    skip: int
    keep: int
    last: bool


def cut_into_pieces(blocks: Iterable[np.ndarray], geometry: PackGeometry) -> Iterator[Piece]:
    """Cut a clip that arrives in `blocks` (mono float32 [n] at the codec's rate) into pieces for the tape.

    Raises:
        AudioError: the blocks hold no samples.
    """
    cutter = _Cutter(geometry)
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.finish()


class _Cutter:
    """Holds the samples of a clip, with reflected edges, from the first frame that the next piece has."""

    def __init__(self, geometry: PackGeometry) -> None:
        self._geometry = geometry
        self._edge = geometry.config.mel.padding
        self._held = np.zeros(geometry.config.left_pad, np.float32)
        self._arrived: list[np.ndarray] = []
        self._n_arrived = 0
        self._n_samples = 0
        self._frames_done = 0  # of codes
        self._has_left_edge = False

    def push(self, block: np.ndarray) -> Iterator[Piece]:
        self._n_samples += len(block)
        self._n_arrived += len(block)
        if len(self._held) + self._n_arrived <= self._geometry.tape_samples(self._geometry.pack_frames):
            # Joined only when they suffice for a piece, since small blocks would be copied over and over; as a copy,
            # since the caller may fill the same memory again.
            self._arrived.append(block.copy())
            return
        self._arrived.append(block)
        self._join()
        yield from self._inner_pieces()

    def finish(self) -> Iterator[Piece]:
        if self._n_samples == 0:
            raise AudioError("The waveform has no samples.", "empty")
        config = self._geometry.config
        self._arrived.append(np.zeros(max(0, config.min_samples - self._n_samples), np.float32))
        self._join()
        self._held = np.concatenate([self._held, self._held[-2 : -2 - self._edge : -1]])
        yield from self._inner_pieces()
        yield self._take(self._frames(), config.n_frames(self._n_samples) - self._frames_done, last=True)

    def _inner_pieces(self) -> Iterator[Piece]:
        size, context = self._geometry.pack_frames, self._geometry.context
        while self._frames() > size:
            own = size - context - (context if self._frames_done else 0)
            yield self._take(size, own // self._geometry.alignment, last=False)
            # The next piece starts where its context does.
            self._held = self._held[(size - 2 * context) * self._geometry.hop :]

    def _take(self, frames: int, keep: int, last: bool) -> Piece:
        samples = self._held[: self._geometry.tape_samples(frames)].copy()
        skip = self._geometry.context // self._geometry.alignment if self._frames_done else 0
        self._frames_done += keep
        return Piece(samples, frames, skip, keep, last)

    def _frames(self) -> int:
        return (len(self._held) - self._geometry.window) // self._geometry.hop + 1

    def _join(self) -> None:
        self._held = np.concatenate([self._held, *self._arrived])
        self._arrived, self._n_arrived = [], 0
        if not self._has_left_edge:
            self._held = np.concatenate([self._held[self._edge : 0 : -1], self._held])
            self._has_left_edge = True


@dataclass(frozen=True)
class Placement(Generic[Tag]):
    """Where a piece lies: its first frame of codes in the pack."""

    tag: Tag
    piece: Piece
    position: int


@dataclass(frozen=True)
class Pack(Generic[Tag]):
    """A tape with pieces on it.

    Attributes:
        tape: samples float32.
        gaps: for each level of the frame rate, bool [frames]: the frames that belong to no piece.
        placements: in order.
    """

    tape: np.ndarray
    gaps: tuple[np.ndarray, ...]
    placements: tuple[Placement[Tag], ...]


def fill_packs(pieces: Iterable[tuple[Tag, Piece]], geometry: PackGeometry, fixed_length: bool) -> Iterator[Pack[Tag]]:
    """Lay `pieces` on tapes in their order.

    With `fixed_length` every tape has `pack_frames` frames; otherwise a tape ends at the next whole unit.
    """
    placements: list[Placement[Tag]] = []
    end = 0
    for tag, piece in pieces:
        if placements and end + piece.n_frames > geometry.pack_frames:
            yield _assemble(placements, geometry, fixed_length)
            placements, end = [], 0
        placements.append(Placement(tag, piece, end // geometry.alignment))
        end += geometry.aligned(piece.n_frames) + geometry.gap
    if placements:
        yield _assemble(placements, geometry, fixed_length)


def _assemble(placements: list[Placement[Tag]], geometry: PackGeometry, fixed_length: bool) -> Pack[Tag]:
    used = placements[-1].position * geometry.alignment + placements[-1].piece.n_frames
    frames = geometry.pack_frames if fixed_length else math.ceil(used / geometry.unit) * geometry.unit
    tape = np.zeros(geometry.tape_samples(frames), np.float32)
    gaps = tuple(np.ones(frames // level, bool) for level in geometry.levels)
    for placement in placements:
        start = placement.position * geometry.alignment
        piece = placement.piece
        tape[start * geometry.hop :][: len(piece.samples)] = piece.samples
        for level, gap in zip(geometry.levels, gaps, strict=True):
            gap[start // level : start // level + piece.n_frames // level] = False
    return Pack(tape, gaps, tuple(placements))
