"""Wide-band PESQ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from .base import Metric, Pair, Quantity, UndefinedMetricError
from .conditions import SILENCE, WIDE_BAND_RATE, require_rate, require_seconds

SHORTEST = 0.25  # s, of the standard's implementation
# The implementation has room for 50 utterances of 0.2 s with pauses of 0.2 s, and writes beyond it without a check.
LONGEST = 20.0
# The mapping of P.862.2 for the worst raw score, -0.5.
WORST = 0.999 + 4 / (1 + math.exp(1.3669 * 0.5 + 3.8224))


class Pesq(Metric):
    """Wide-band PESQ (ITU-T P.862.2); of clips above 20 s the mean over equal parts of at most 20 s.

    A silent part of a reconstruction has the worst value of the scale, 1.04; parts without speech in the original are
    left out.
    """

    quantities = (Quantity("pesq", "higher", "wide-band PESQ, quality of speech from 1.04 to 4.64"),)
    packages: ClassVar[Mapping[str, str]] = {"pesq": "pesq"}

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return `pesq`; undefined below 16 kHz or 0.25 s, and without an utterance in the original."""
        require_rate(pair, WIDE_BAND_RATE)
        require_seconds(pair, SHORTEST)
        original, reconstruction = pair.original.at(WIDE_BAND_RATE), pair.reconstruction.at(WIDE_BAND_RATE)
        count = math.ceil(pair.original.seconds / LONGEST)
        parts = zip(np.array_split(original, count), np.array_split(reconstruction, count), strict=True)
        scores = [score for score in (_pesq(*part) for part in parts) if score is not None]
        if not scores:
            raise UndefinedMetricError("the original holds no utterance")
        return {"pesq": math.fsum(scores) / len(scores)}


def _pesq(original: np.ndarray, reconstruction: np.ndarray) -> float | None:
    """PESQ of at most 20 s at 16 kHz; None without an utterance in the original."""
    import pesq as package

    if np.ptp(original) < SILENCE:
        return None
    if np.ptp(reconstruction) < SILENCE:
        return WORST
    clips: list[Any] = [np.ascontiguousarray(samples, np.float32) for samples in (original, reconstruction)]
    errors = package.PesqError
    found = package.pesq(WIDE_BAND_RATE, *clips, mode="wb", on_error=errors.RETURN_VALUES)
    if found == errors.NO_UTTERANCES_DETECTED:
        return None
    if not found >= 0:  # NaN, too
        raise UndefinedMetricError("PESQ found no result")
    return float(found)
