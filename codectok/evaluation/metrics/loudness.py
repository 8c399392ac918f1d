"""Difference of loudness."""

from __future__ import annotations

from collections.abc import Mapping

from codectok.audio.analysis.spectrum import Spectrum

from .base import Metric, Pair, Quantity, Signal, UndefinedMetricError


class Loudness(Metric):
    """Difference of the integrated loudness (ITU-R BS.1770-4) of reconstruction and original."""

    quantities = (
        Quantity("loudness", "lower", "absolute difference of integrated loudness in LU"),
        Quantity("loudness_difference", "neither", "loudness of the reconstruction less that of the original in LU"),
    )

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return both differences; undefined if a clip is shorter than 0.4 s or never above -70 LUFS."""
        difference = _loudness(pair.reconstruction, "reconstruction") - _loudness(pair.original, "original")
        return {"loudness": abs(difference), "loudness_difference": difference}


def _loudness(signal: Signal, name: str) -> float:
    # A copy: arrays that workers share cannot be written, of which PyTorch warns.
    loudness = signal.keep("loudness", lambda: Spectrum(signal.samples.copy(), signal.sample_rate).unrounded_loudness())
    if loudness is None:
        raise UndefinedMetricError(f"no 0.4 s of the {name} are above -70 LUFS")
    return loudness
