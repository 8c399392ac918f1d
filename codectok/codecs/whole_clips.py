"""Encodes clips as wholes, in batches of one length."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor

from codectok.batches import BatchEncoder, PendingClip, complete_clips
from codectok.errors import AudioError

Tag = TypeVar("Tag")

# A clip is held in memory as a whole, and attention over it takes memory that grows with the square of its length.
MAX_CLIP_SECONDS = 600.0
# Clips wait for others of their length until this much audio waits.
WINDOW_SECONDS = 1800.0


@dataclass(frozen=True)
class WholeClips:
    """Batches hold clips of one exact length, since padding would change the codes of the shorter ones.

    Attributes:
        sample_rate: rate of the samples in Hz.
        min_samples: shorter clips are errors.
        max_seconds: longer clips are errors.
        batch_seconds: audio of a batch; 0 to encode clips one by one.
    """

    sample_rate: int
    min_samples: int = 1
    max_seconds: float = MAX_CLIP_SECONDS
    batch_seconds: float = 0.0

    def rows(self, n_samples: int) -> int:
        """Number of clips in a batch of clips of `n_samples`: it depends on nothing else.

        Clips below a second count as one, so that batches of very short ones stay small.
        """
        return max(1, int(self.batch_seconds * self.sample_rate / max(n_samples, self.sample_rate)))

    def clip_encoder(self, batches: BatchEncoder) -> WholeClipEncoder:
        """Return an encoder of clips that computes their batches with `batches`."""
        return WholeClipEncoder(self, batches)


@dataclass
class _WholeClip(PendingClip[Tag]):
    samples: np.ndarray | None = None


class WholeClipEncoder:
    """Encodes clips in batches of one length.

    Args:
        layout: how clips become batches.
        batches: computes the codes of a batch: samples float32 [rows, n] to codes [rows, n_frames, n_codebooks]. It
            may refuse clips with an `AudioError`.
    """

    def __init__(self, layout: WholeClips, batches: BatchEncoder) -> None:
        self._layout, self._batches = layout, batches

    @property
    def sample_rate(self) -> int:
        """Rate of the samples in Hz."""
        return self._layout.sample_rate

    def encode_stream(self, blocks: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Encode one clip; its codes are returned at once, when it has ended."""
        for _, codes in self.encode_clips([(None, blocks)]):
            if isinstance(codes, AudioError):
                raise codes
            yield codes

    def encode_clips(
        self, clips: Iterable[tuple[Tag, Iterable[np.ndarray]]]
    ) -> Iterator[tuple[Tag, Tensor | AudioError]]:
        """Encode many clips, see `codectok.codecs.base.AudioCodec.encode_clips`."""
        order: deque[PendingClip[Tag]] = deque()
        waiting: dict[int, list[_WholeClip[Tag]]] = {}  # by length, the oldest first
        running: deque[_Batch[Tag]] = deque()
        n_waiting = 0
        for tag, blocks in clips:
            clip = _WholeClip(tag)
            order.append(clip)
            try:
                clip.samples = self._whole(blocks)
            except AudioError as error:
                clip.result = error
            else:
                length = len(clip.samples)
                n_waiting += length
                waiting.setdefault(length, []).append(clip)
                if len(waiting[length]) == self._layout.rows(length):
                    n_waiting -= self._start(waiting.pop(length), running)
            while waiting and n_waiting > WINDOW_SECONDS * self.sample_rate:
                n_waiting -= self._start(waiting.pop(next(iter(waiting))), running)
            while len(running) > self._batches.batches_ahead:
                self._finish(running.popleft())
            yield from complete_clips(order)
        while waiting:
            self._start(waiting.pop(next(iter(waiting))), running)
            while len(running) > self._batches.batches_ahead:
                self._finish(running.popleft())
            yield from complete_clips(order)
        while running:
            self._finish(running.popleft())
        yield from complete_clips(order)

    def _whole(self, blocks: Iterable[np.ndarray]) -> np.ndarray:
        """Join the blocks of a clip."""
        limit = int(self._layout.max_seconds * self.sample_rate)
        joined: list[np.ndarray] = []
        length = 0
        for block in blocks:
            joined.append(block.copy())  # the caller may use its memory again
            length += len(block)
            if length > limit:
                raise AudioError(
                    f"The clip is longer than {self._layout.max_seconds:g} s, and this codec encodes clips as a whole;"
                    " cut it first (codectok shard).",
                    "too_long",
                )
        if length == 0:
            raise AudioError("The waveform has no samples.", "empty")
        if length < self._layout.min_samples:
            raise AudioError(
                f"The clip has {length} samples, and this codec needs {self._layout.min_samples}.", "too_short"
            )
        return np.concatenate(joined)

    def _start(self, group: list[_WholeClip[Tag]], running: deque[_Batch[Tag]]) -> int:
        """Start the batch of a group, and return the number of its samples."""
        samples = [clip.samples for clip in group if clip.samples is not None]
        length = len(samples[0])
        # The number of rows of a length is always the same: free ones repeat the last clip.
        rows = np.stack([*samples, *[samples[-1]] * (self._layout.rows(length) - len(samples))])
        for clip in group:
            clip.samples = None
        running.append(_Batch(group, rows, self._started(rows)))
        return length * len(samples)

    def _started(self, rows: np.ndarray) -> Callable[[], Tensor] | AudioError:
        try:
            return self._batches.start(rows)
        except AudioError as error:
            return error

    def _finish(self, batch: _Batch[Tag]) -> None:
        codes = _result(batch.wait)
        for number, clip in enumerate(batch.clips):
            if not isinstance(codes, AudioError):
                clip.result = codes[number].clone()
            elif len(batch.clips) == 1:
                clip.result = codes
            else:  # which clip was refused?
                rows = np.stack([batch.rows[number]] * len(batch.rows))
                alone = _result(self._started(rows))
                clip.result = alone if isinstance(alone, AudioError) else alone[0].clone()


@dataclass
class _Batch(Generic[Tag]):
    """A batch on its way: its clips, their samples [rows, n], and a function that waits for the codes, or an error."""

    clips: list[_WholeClip[Tag]]
    rows: np.ndarray
    wait: Callable[[], Tensor] | AudioError


def _result(wait: Callable[[], Tensor] | AudioError) -> Tensor | AudioError:
    if isinstance(wait, AudioError):
        return wait
    try:
        return wait()
    except AudioError as error:
        return error
