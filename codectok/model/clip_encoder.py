"""Clips to codes, given whatever computes the codes of packs: the network here, or one in another process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from codectok.audio.resample import resample_blocks
from codectok.audio.waveform import mono_blocks
from codectok.errors import AudioError, CodectokError
from codectok.memory import is_gpu_out_of_memory

from .packing import Pack, PackGeometry, Piece, cut_into_pieces, fill_packs

Tag = TypeVar("Tag")


@contextmanager
def memory_errors(pack_frames: int) -> Iterator[None]:
    """Says of a GPU without memory for a codec and its packs what can be done about it.

    Raises:
        CodectokError: that is so.
    """
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_gpu_out_of_memory(error):
            raise
        # Smaller packs might do, but codes can depend on their size: that is for the user to choose.
        raise CodectokError(
            f"The GPU has too little memory for packs of {pack_frames:,} frames; choose smaller ones"
            " (--pack-frames, for a table of its own), or let nothing else use the GPU."
        ) from None


class PackEncoder(Protocol):
    """Computes the codes of packs."""

    @property
    def fixed_length(self) -> bool:
        """Whether every pack must have `pack_frames` frames."""

    @property
    def packs_ahead(self) -> int:
        """How many packs to start before the codes of the first are asked for."""

    def start(self, tape: np.ndarray, gaps: tuple[np.ndarray, ...]) -> Callable[[], Tensor]:
        """Begin with a pack, as `codectok.model.packing.Pack` has it.

        Returns:
            A function that waits for its codes, int64 [frames of codes, n_codebooks] on the CPU.
        """


class ClipEncoder:
    """Lays clips into packs, and finds their codes in those of the packs.

    Args:
        geometry: of the packs.
        packs: computes the codes of them.
    """

    def __init__(self, geometry: PackGeometry, packs: PackEncoder) -> None:
        self._geometry = geometry
        self._packs = packs

    @property
    def sample_rate(self) -> int:
        """Rate in Hz at which the codec works."""
        return self._geometry.config.mel.sample_rate

    def encode_stream(self, blocks: Iterable[Tensor | np.ndarray], sample_rate: int) -> Iterator[Tensor]:
        """As `codectok.Codec.encode_stream`."""
        pieces = cut_into_pieces(self._samples(blocks, sample_rate), self._geometry)
        for _, _, codes in self.encode_pieces((None, piece) for piece in pieces):
            yield codes

    def encode_clips(
        self, clips: Iterable[Iterable[Tensor | np.ndarray]], sample_rate: int
    ) -> Iterator[Tensor | AudioError]:
        """As `codectok.Codec.encode_clips`."""
        failed: dict[int, AudioError] = {}

        def pieces() -> Iterator[tuple[int, Piece]]:
            for number, blocks in enumerate(clips):
                try:
                    for piece in cut_into_pieces(self._samples(blocks, sample_rate), self._geometry):
                        yield number, piece
                except AudioError as error:
                    failed[number] = error

        current, parts = 0, list[Tensor]()
        for number, piece, codes in self.encode_pieces(pieces()):
            while current < number:  # Clips before this one that are not finished never will be.
                yield failed.pop(current)
                current, parts = current + 1, []
            parts.append(codes)
            if piece.last:
                yield torch.cat(parts)
                current, parts = current + 1, []
        while current in failed:
            yield failed.pop(current)
            current += 1

    def encode_pieces(self, pieces: Iterable[tuple[Tag, Piece]]) -> Iterator[tuple[Tag, Piece, Tensor]]:
        """Codes [keep, n_codebooks] int64 on the CPU for every piece, in order, as packs become full."""
        running: deque[tuple[Pack[Tag], Callable[[], Tensor]]] = deque()
        for pack in fill_packs(pieces, self._geometry, self._packs.fixed_length):
            with memory_errors(self._geometry.pack_frames):
                running.append((pack, self._packs.start(pack.tape, pack.gaps)))
            if len(running) > self._packs.packs_ahead:
                yield from self._codes_of_pieces(*running.popleft())
        while running:
            yield from self._codes_of_pieces(*running.popleft())

    def _codes_of_pieces(self, pack: Pack[Tag], wait: Callable[[], Tensor]) -> Iterator[tuple[Tag, Piece, Tensor]]:
        with memory_errors(self._geometry.pack_frames):
            codes = wait()
        for placement in pack.placements:
            start = placement.position + placement.piece.skip
            yield placement.tag, placement.piece, codes[start : start + placement.piece.keep].clone()

    def _samples(self, blocks: Iterable[Tensor | np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
        return resample_blocks(mono_blocks(blocks), sample_rate, self.sample_rate)
