"""Scale of floating-point files: samples in [-1, 1], or integers that were written as floats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from codectok.choices import ScaleChoice
from codectok.errors import AudioError

from .decoding import decoded_streams
from .notes import DecodingNotes
from .waveform import FAR_BEYOND, check_finite, peak_of

FLOAT_ENCODINGS = frozenset(["FLOAT", "DOUBLE"])
INTEGER_SCALES = (1 << 15, 1 << 23, 1 << 31)
"""Full scale of 16, 24 and 32 bits."""


def is_float(encoding: str, scale: ScaleChoice) -> bool:
    """Return True if samples of an encoding must be measured before use, since they may be far beyond full scale."""
    if encoding in FLOAT_ENCODINGS or encoding.startswith("pcm_f"):
        return True
    # Hardly any other file that only ffmpeg reads is far beyond, and decoding all of them twice takes time.
    return scale == "auto" and "ffmpeg" in encoding


def scaled(blocks: Iterable[np.ndarray], divisor: float | None, sample_rate: int, where: str) -> Iterator[np.ndarray]:
    """Divide `blocks` [n, channels] of a stream; raise `AudioError` at a sample that is not finite."""
    found = 0
    blocks = iter(blocks)
    for block in blocks:
        finite = np.isfinite(block).all(axis=1)
        good = block if finite.all() else block[: int(finite.argmin())]
        if len(good):
            yield good if divisor in (None, 1.0) else good / np.float32(divisor)
        try:
            check_finite(block, where, found)
        except AudioError as error:
            rest = len(block) - len(good) + sum(map(len, blocks))
            raise AudioError(str(error), error.reason, rest / sample_rate) from None
        found += len(block)


def file_divisor(source: Path | bytes, where: str, scale: ScaleChoice) -> float:
    """Number by which the floats of a file are divided, by a pass over all of it: 1, or the full scale of integers.

    Raises:
        AudioError: "clipped", if samples are far beyond 1 and not to be scaled, or beyond all integers.
    """
    highest, seconds = 0.0, 0.0
    try:
        for stream in decoded_streams(source, where, DecodingNotes()):
            level, length = _highest_level(stream.blocks)
            seconds += length / stream.sample_rate
            highest = max(highest, level if is_float(stream.encoding, scale) else 0.0)
    except AudioError:
        pass  # the next pass meets the damage as well
    return _divisor_of(highest, scale, where, seconds)


def _highest_level(blocks: Iterable[np.ndarray]) -> tuple[float, int]:
    """Largest absolute sample of `blocks` [n, channels], and the number of samples a channel, before any damage."""
    highest, length = 0.0, 0
    try:
        for block in blocks:
            peak = peak_of(block)
            if not np.isfinite(peak):
                break  # an error of its own
            highest, length = max(highest, peak), length + len(block)
    except AudioError:
        pass  # the next pass meets the damage as well
    return highest, length


def _divisor_of(peak: float, scale: ScaleChoice, where: str, seconds: float) -> float:
    if peak <= FAR_BEYOND:
        return 1.0
    divisor = next((float(full) for full in INTEGER_SCALES if peak <= full), None)
    beyond = f"{where} has floating-point samples up to {peak:,.5g}, far beyond full scale, which is 1"
    if divisor is None:
        raise AudioError(f"{beyond}; scale them to [-1, 1] first.", "clipped", seconds)
    if scale == "refuse":
        advice = f"if they are scaled integers, pass --scale auto to divide them by {divisor:,.0f}"
        raise AudioError(f"{beyond}; {advice}.", "clipped", seconds)
    return divisor
