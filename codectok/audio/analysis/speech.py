"""Voice activity detection with silero-vad; needs the extra `vad`."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from codectok.errors import InputError

SPEECH_RATE = 16_000
WINDOW = 512  # samples per call of the model
MIN_SILENCE_MILLISECONDS = 300
PAD_MILLISECONDS = 100


def check_installed() -> None:
    """Raise `InputError` if silero-vad is not installed."""
    _silero()


def speech_in(blocks: Iterable[np.ndarray]) -> tuple[list[tuple[float, float]], float]:
    """Detect speech in a recording that arrives in blocks float32 [n] at 16 kHz.

    Returns:
        Start and end of each span of speech, and the length of the recording, in seconds.
    """
    silero, model = _silero()
    model.reset_states()
    detector = silero.VADIterator(
        model, min_silence_duration_ms=MIN_SILENCE_MILLISECONDS, speech_pad_ms=PAD_MILLISECONDS
    )
    found: list[tuple[float, float]] = []
    started: float | None = None
    rest, n_samples = np.zeros(0, np.float32), 0
    for block in blocks:
        n_samples += len(block)
        held = np.concatenate([rest, block])
        whole = len(held) // WINDOW * WINDOW
        for window in torch.from_numpy(held[:whole]).reshape(-1, WINDOW):  # none of a short block
            event = detector(window)
            if event and "start" in event:
                started = max(0, event["start"]) / SPEECH_RATE
            elif event and started is not None:
                found.append((started, event["end"] / SPEECH_RATE))
                started = None
        rest = held[whole:]
    seconds = n_samples / SPEECH_RATE
    if started is not None:
        found.append((started, seconds))
    # The padding of neighbours may overlap, and the last one may extend beyond the end.
    limits = [following for following, _ in found[1:]] + [seconds]
    return [(start, min(end, limit)) for (start, end), limit in zip(found, limits, strict=False)], seconds


@functools.cache
def _silero() -> tuple[Any, Any]:
    try:
        import silero_vad
    except ImportError:
        raise InputError("Speech detection needs silero-vad; install it: pip install 'codectok[vad]'.") from None
    with torch.random.fork_rng(devices=[]):
        return silero_vad, silero_vad.load_silero_vad()
