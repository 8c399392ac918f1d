"""Interfaces between the clips of a job and the codec that encodes them, in this process or in another one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

import numpy as np
from torch import Tensor

from codectok.batches import BatchEncoder
from codectok.errors import AudioError

Tag = TypeVar("Tag")


class ClipEncoder(Protocol):
    """Encodes clips, and returns the codes of each."""

    @property
    def sample_rate(self) -> int:
        """Rate of the samples in Hz."""

    def encode_stream(self, blocks: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Encode one clip as its blocks arrive, see `AudioCodec.encode_stream`.

        Args:
            blocks: finite samples, mono float32 [n] at the codec's rate.
        """

    def encode_clips(
        self, clips: Iterable[tuple[Tag, Iterable[np.ndarray]]]
    ) -> Iterator[tuple[Tag, Tensor | AudioError]]:
        """Encode many clips, see `AudioCodec.encode_clips`.

        Args:
            clips: any tag of a clip, and its blocks: finite samples, mono float32 [n] at the codec's rate.

        Returns:
            The tag of each clip in order, and its codes int64 [n_frames, n_codebooks], or the error that its blocks
            raised.
        """


class Batching(Protocol):
    """How clips become batches; it can be pickled, and needs no weights."""

    def clip_encoder(self, batches: BatchEncoder) -> ClipEncoder:
        """Return an encoder of clips that computes their batches with `batches`."""
