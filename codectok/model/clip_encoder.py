"""Encodes clips with any encoder of packs: the network in this process, or a server in another one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from codectok.batches import BatchEncoder, PendingClip, complete_clips
from codectok.errors import AudioError
from codectok.memory import gpu_memory_errors

from .packing import Chunk, Pack, PackGeometry, cut_into_chunks, fill_packs

Tag = TypeVar("Tag")


def pack_memory_errors(pack_frames: int) -> AbstractContextManager[None]:
    """Raise a `CodectokError` with advice if a GPU has too little memory for packs of `pack_frames` frames."""
    return gpu_memory_errors(f"packs of {pack_frames:,} frames", "use smaller packs (--pack-frames, with a new table)")


@dataclass(frozen=True)
class PackBatching:
    """Clips are packed end to end.

    Attributes:
        geometry: geometry of the packs.
        fixed_length: give every pack the same number of frames, as a GPU needs it.
    """

    geometry: PackGeometry
    fixed_length: bool

    def clip_encoder(self, batches: BatchEncoder) -> PackedClipEncoder:
        """Return an encoder of clips that computes their packs with `batches`."""
        return PackedClipEncoder(self, batches)


@dataclass
class _PackedClip(PendingClip[Tag]):
    codes: list[Tensor] = field(default_factory=list)


class PackedClipEncoder:
    """Packs clips, encodes the packs and returns the codes of each clip.

    Args:
        batching: how clips are packed.
        packs: computes the codes of packs.
    """

    def __init__(self, batching: PackBatching, packs: BatchEncoder) -> None:
        self._geometry = batching.geometry
        self._fixed_length = batching.fixed_length
        self._packs = packs

    @property
    def sample_rate(self) -> int:
        """The codec's sample rate in Hz."""
        return self._geometry.config.mel.sample_rate

    def encode_stream(self, blocks: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Encode one clip as its blocks arrive, see `codectok.codecs.base.AudioCodec.encode_stream`.

        Args:
            blocks: finite samples, mono float32 [n] at the codec's rate.
        """
        chunks = cut_into_chunks(blocks, self._geometry)
        for _, _, codes in self.encode_chunks((None, chunk) for chunk in chunks):
            yield codes

    def encode_clips(
        self, clips: Iterable[tuple[Tag, Iterable[np.ndarray]]]
    ) -> Iterator[tuple[Tag, Tensor | AudioError]]:
        """Encode many clips, see `codectok.codecs.base.AudioCodec.encode_clips`.

        Args:
            clips: any tag of a clip, and its blocks: finite samples, mono float32 [n] at the codec's rate.

        Returns:
            The tag of each clip in order, and its codes int64 [n_frames, n_codebooks], or the error that its blocks
            raised.
        """
        pending: deque[PendingClip[Tag]] = deque()

        def chunks() -> Iterator[tuple[_PackedClip[Tag], Chunk]]:
            for tag, blocks in clips:
                clip = _PackedClip(tag)
                pending.append(clip)
                try:
                    for chunk in cut_into_chunks(blocks, self._geometry):
                        yield clip, chunk
                except AudioError as error:
                    clip.result = error

        for clip, chunk, codes in self.encode_chunks(chunks()):
            clip.codes.append(codes)
            if chunk.last:
                clip.result = torch.cat(clip.codes)
            yield from complete_clips(pending)
        yield from complete_clips(pending)

    def encode_chunks(self, chunks: Iterable[tuple[Tag, Chunk]]) -> Iterator[tuple[Tag, Chunk, Tensor]]:
        """Return the codes [keep, n_codebooks] int64 on the CPU of every chunk, in order, as packs become full."""
        running: deque[tuple[Pack[Tag], Callable[[], Tensor]]] = deque()
        for pack in fill_packs(chunks, self._geometry, self._fixed_length):
            with pack_memory_errors(self._geometry.pack_frames):
                running.append((pack, self._packs.start(pack.samples, *pack.gaps)))
            if len(running) > self._packs.batches_ahead:
                yield from self._codes_of_chunks(*running.popleft())
        while running:
            yield from self._codes_of_chunks(*running.popleft())

    def _codes_of_chunks(self, pack: Pack[Tag], wait: Callable[[], Tensor]) -> Iterator[tuple[Tag, Chunk, Tensor]]:
        with pack_memory_errors(self._geometry.pack_frames):
            codes = wait()
        for placement in pack.placements:
            start = placement.position + placement.chunk.skip
            yield placement.tag, placement.chunk, codes[start : start + placement.chunk.keep].clone()
