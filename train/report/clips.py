"""The validation clips of a run: the original, and its reconstruction at the first and the last validation."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import numpy as np
import soundfile

from codectok.evaluation.pages.players import Comparison, Player
from codectok.evaluation.pages.spectrogram import spectrograms
from codectok.train.run.metrics_log import VALIDATION

from .events import RunEvents, StoredAudio

MOST_CLIPS = 8
MOST_SECONDS = 20.0
_TAG = re.compile(rf"{re.escape(VALIDATION)}(\d+)/reconstruction")


def clip_comparisons(events: RunEvents) -> Iterator[Comparison]:
    """Iterate over the first clips that were logged; clips whose audio cannot be read are left out."""
    numbers = sorted(int(found[1]) for tag in events.audio if (found := _TAG.fullmatch(tag)))
    for number in numbers[:MOST_CLIPS]:
        originals, made = (
            events.audio.get(f"{VALIDATION}{number}/{kind}", []) for kind in ("original", "reconstruction")
        )
        versions = {"original": originals[0]} if originals else {}
        versions |= {f"step {clip.step:,}": clip for clip in (made[:1] + made[-1:])}
        comparison = _comparison(number, versions)
        if comparison is not None:
            yield comparison


def _comparison(number: int, versions: dict[str, StoredAudio]) -> Comparison | None:
    decoded: dict[str, np.ndarray] = {}
    seconds, sample_rate = 0.0, 0
    for label, clip in versions.items():
        try:
            samples, sample_rate = soundfile.read(io.BytesIO(clip.load()), dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError):
            continue
        seconds = len(samples) / sample_rate
        decoded[label] = samples[: round(MOST_SECONDS * sample_rate), 0]
    if not decoded:
        return None
    pictures = spectrograms(list(decoded.values()), sample_rate)
    players = [
        Player(label, _flac(samples, sample_rate), "audio/flac", picture)
        for (label, samples), picture in zip(decoded.items(), pictures, strict=True)
    ]
    cut = f", the first {MOST_SECONDS:g} s" if seconds > MOST_SECONDS else ""
    return Comparison(f"Clip {number}, {seconds:.1f} s{cut}", players)


def _flac(samples: np.ndarray, sample_rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="FLAC")
    return file.getvalue()
