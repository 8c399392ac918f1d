"""Batches of clips: the interface that encodes them, and clips whose codes are not complete yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from .errors import AudioError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Tag = TypeVar("Tag")


class BatchEncoder(Protocol):
    """Computes the codes of batches: packs, or clips of one length."""

    @property
    def batches_ahead(self) -> int:
        """Number of batches to start before waiting for the codes of the first."""

    def start(self, *arrays: np.ndarray) -> Callable[[], Tensor]:
        """Start encoding a batch.

        Args:
            arrays: `samples` and `gaps` of `codectok.model.packing.Pack`, or the samples [rows, n] of clips of one
                length.

        Returns:
            A function that waits for the codes, int64 on the CPU: [code frames, n_codebooks] of a pack, or
            [rows, n_frames, n_codebooks].
        """


@dataclass
class PendingClip(Generic[Tag]):
    """A clip on its way; `result` is None until its codes are complete."""

    tag: Tag
    result: Tensor | AudioError | None = None


def complete_clips(pending: deque[PendingClip[Tag]]) -> Iterator[tuple[Tag, Tensor | AudioError]]:
    """Remove clips from the front of the queue as far as they are complete."""
    while pending and (result := pending[0].result) is not None:
        yield pending.popleft().tag, result
