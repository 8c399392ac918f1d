"""Mixing the channels of a stream to one, without losing sound that its channels hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from codectok.audio.notes import DecodingNotes

WINDOW_SECONDS = 0.5
# Channels cancel if the mix is 17 dB below the power of unrelated channels: 20 dB below that of either of two.
CANCELLED_SHARE = 0.02
AUDIBLE_POWER = 1e-6  # -60 dB of full scale
CROSSFADE_SECONDS = 0.01
# A shorter rest says too little about its channels.
LEAST_REST = 0.25


class Mixer:
    """Mixes the blocks of one stream to mono.

    The mix is the mean of all channels, or their sum by `weights`. Windows of half a second in which the channels
    cancel each other, or in which only channels without weight have sound, are taken from the first channel that is as
    loud as the others, with a crossfade to the mix; windows of near silence continue as the one before. Windows begin
    at multiples of their length, so that the result does not depend on the sizes of blocks. A sum that would go beyond
    full scale where no channel does is turned down in its window, evenly from and to the level of its neighbours.

    Args:
        channels: number of channels, at least 2.
        sample_rate: in Hz.
        weights: of each channel; None for the plain mean.
        notes: receives the parts in which channels cancel.
        start: of the stream in the file, in seconds.
    """

    def __init__(
        self, channels: int, sample_rate: int, weights: Sequence[float] | None, notes: DecodingNotes, start: float
    ) -> None:
        self._weights = weights
        self._squares = np.square(np.full(channels, 1 / channels) if weights is None else np.asarray(weights))
        self._window = max(1, round(WINDOW_SECONDS * sample_rate))
        self._fade = max(1, round(CROSSFADE_SECONDS * sample_rate))
        self._rate, self._notes, self._start = sample_rate, notes, start
        self._position = 0  # of the next window in the stream
        self._replaced = False  # the last window was taken from one channel
        self._loudest: int | None = None  # the channel that replaces the mix

    def mix(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Mix `blocks` float32 [n, channels] to blocks float32 [n]."""
        mixed = (window for whole in self._in_windows(blocks) for window in self._mixed(whole))
        if self._weights is None:
            return (samples for samples, _ in mixed)
        return _turned_down(mixed)

    def _in_windows(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield blocks of whole windows, and a shorter one at the end."""
        held: list[np.ndarray] = []
        length = 0
        for block in blocks:
            held.append(block)
            length += len(block)
            if length >= self._window:
                joined = held[0] if len(held) == 1 else np.concatenate(held)
                whole = length - length % self._window
                yield joined[:whole]
                held, length = [joined[whole:]], length - whole
        if length:
            yield np.concatenate(held)

    def _mixed(self, block: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
        """Yield the mix of a block, or of each of its windows, with the largest level that it may have."""
        columns = [np.ascontiguousarray(column) for column in block.T]
        mono = self._mix(columns)
        size = self._window if len(block) >= self._window else len(block)
        power = np.stack([_power(column, size) for column in columns], axis=1)
        expected = power @ self._squares
        audible = expected > AUDIBLE_POWER * self._squares.sum()
        cancelled = audible & (_power(mono, size) < CANCELLED_SHARE * expected)
        if not self._squares.all():  # a channel that is left out may hold all the sound there is
            left_out = ~audible & (power[:, self._squares == 0].max(axis=1) > AUDIBLE_POWER)
            audible, cancelled = audible | left_out, cancelled | left_out
        if self._position and size < LEAST_REST * self._window:
            audible[:] = cancelled[:] = False
        if self._weights is None and not self._replaced and not cancelled.any():
            self._position += len(block)
            yield mono, 1.0
            return
        for number in range(len(power)):
            part = slice(number * size, (number + 1) * size)
            if audible[number]:
                replaced = bool(cancelled[number])
                if replaced:
                    self._note_cancelled(size, power[number])
            else:
                replaced = self._replaced
            peak = 1.0 if self._weights is None else max(1.0, *(float(np.abs(one[part]).max()) for one in columns))
            yield self._window_of(mono[part], columns, part, replaced), peak
            self._replaced = replaced
            self._position += size

    def _mix(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        if self._weights is None:
            if len(columns) == 2:
                half: np.ndarray = (columns[0] + columns[1]) * np.float32(0.5)
                half += 0.0  # as a mean, which has no negative zeros
                return half
            return np.asarray(np.stack(columns, axis=1).mean(axis=1, dtype=np.float32))
        # One after the other, since the bits of a matrix product depend on the processor.
        mono = np.zeros(len(columns[0]), np.float32)
        for weight, column in zip(self._weights, columns, strict=True):
            mono += column * np.float32(weight)
        return mono

    def _window_of(self, mono: np.ndarray, columns: Sequence[np.ndarray], part: slice, replaced: bool) -> np.ndarray:
        """Return a window of the mix or of one channel, with a crossfade if the window before was the other."""
        if not (replaced or self._replaced) or self._loudest is None:
            return mono
        single = columns[self._loudest][part]
        chosen, other = (single, mono) if replaced else (mono, single)
        if replaced == self._replaced or self._position == 0:
            return chosen
        n = min(self._fade, len(chosen))
        ramp = (np.arange(1, n + 1, dtype=np.float32) / np.float32(n + 1)).astype(np.float32)
        return np.concatenate([other[:n] + ramp * (chosen[:n] - other[:n]), chosen[n:]])

    def _note_cancelled(self, size: int, power: np.ndarray) -> None:
        mixed = np.where(self._squares > 0, power, 0.0)
        left_out = mixed @ self._squares <= AUDIBLE_POWER * self._squares.sum()
        if self._loudest is None or left_out or not self._squares[self._loudest]:
            heard = power if left_out else mixed
            self._loudest = int(np.argmax(heard >= 0.5 * heard.max()))
        first, end = self._position / self._rate, (self._position + size) / self._rate
        self._notes.add_cancelled(self._start + first, self._start + end)


def _power(samples: np.ndarray, size: int) -> np.ndarray:
    """Variance of each window of `size` samples: a constant offset is not sound."""
    windows = samples.reshape(-1, size)
    power: np.ndarray = np.einsum("ij,ij->i", windows, windows).astype(np.float64) / size
    variance: np.ndarray = np.maximum(0.0, power - np.square(windows.mean(axis=1, dtype=np.float64)))
    return variance


def _turned_down(windows: Iterable[tuple[np.ndarray, float]]) -> Iterator[np.ndarray]:
    """Turn down windows that go beyond their largest level; the gain changes linearly within a window."""
    held: np.ndarray | None = None
    before = own = 1.0  # gain at the start of the held window, and largest gain within it
    for samples, largest in windows:
        peak = float(np.abs(samples).max())
        gain = 1.0 if peak <= largest else largest / peak
        if held is not None:
            after = min(own, gain)
            yield _faded(held, before, after)
            before = after
        else:
            before = gain
        held, own = samples, gain
    if held is not None:
        yield _faded(held, before, own)


def _faded(samples: np.ndarray, first: float, last: float) -> np.ndarray:
    if first == last == 1.0:
        return samples
    faded: np.ndarray = samples * np.linspace(first, last, len(samples), dtype=np.float32)
    return faded
