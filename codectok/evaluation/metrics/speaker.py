"""Similarity of speakers."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from .base import Metric, Pair, Quantity, Signal
from .conditions import WIDE_BAND_RATE, require_speech_to_rate

TARGET_DBFS = -30  # to which the encoder was trained; louder clips stay as they are


class SpeakerSimilarity(Metric):
    """Cosine of the embeddings of both speakers by Resemblyzer, which was trained by the loss of Wan et al. 2018.

    Pauses are kept, so that both embeddings are of the same words.
    """

    quantities = (Quantity("speaker_similarity", "higher", "cosine of embeddings of the speakers, 0 to 1"),)
    packages: ClassVar[Mapping[str, str]] = {
        "resemblyzer": "Resemblyzer",
        "webrtcvad": "webrtcvad",
        "pkg_resources": "setuptools<82",
        "librosa": "librosa",
    }

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return `speaker_similarity`; undefined below 0.5 s or 16 kHz, and for silence."""
        require_speech_to_rate(pair)
        original, reconstruction = (_embedding(one) for one in (pair.original, pair.reconstruction))
        return {"speaker_similarity": float(np.dot(original, reconstruction))}


def _embedding(signal: Signal) -> np.ndarray:
    return signal.keep("speaker", lambda: _compute_embedding(signal.at(WIDE_BAND_RATE)))


def _compute_embedding(samples: np.ndarray) -> np.ndarray:
    encoder, normalize = _package()
    found: np.ndarray = encoder.embed_utterance(normalize(samples, TARGET_DBFS, increase_only=True))
    return found.astype(np.float64)


@functools.cache
def _package() -> tuple[Any, Any]:
    with warnings.catch_warnings():
        # webrtcvad asks an old package for its version; resemblyzer uses an old name of SciPy.
        warnings.simplefilter("ignore")
        from resemblyzer import VoiceEncoder, normalize_volume
    return VoiceEncoder("cpu", verbose=False), normalize_volume
