"""Quality of a segment, and limits on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from codectok.errors import AudioError, InputError

from .dnsmos import overall_quality
from .spectrum import Spectrum

# Samples above this level count as clipped: lossy codecs round off clipped peaks.
CLIPPED_LEVEL = 0.999


@dataclass(frozen=True)
class QualityLimits:
    """Limits that segments must keep; None for no limit.

    Attributes:
        min_loudness, max_loudness: integrated loudness in LUFS.
        max_clipping: share of samples at full scale.
        min_bandwidth: highest audible frequency in Hz.
        min_dnsmos: DNSMOS score from 1 to 5.

    Raises:
        InputError: a limit is not a finite number.
    """

    min_loudness: float | None = None
    max_loudness: float | None = None
    max_clipping: float | None = None
    min_bandwidth: float | None = None
    min_dnsmos: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not math.isfinite(value):
                raise InputError(f"The limit {name.replace('_', '-')} must be a finite number, not {value:g}.")


@dataclass(frozen=True)
class Quality:
    """Measured quality of a segment.

    Attributes:
        loudness: integrated loudness in LUFS; None for silence.
        clipping: share of samples at full scale.
        bandwidth: highest audible frequency in Hz.
        dnsmos: score from 1 to 5; None if not measured.
    """

    loudness: float | None
    clipping: float
    bandwidth: int
    dnsmos: float | None = None

    @classmethod
    def of(cls, samples: np.ndarray, sample_rate: int) -> Quality:
        """Measure mono `samples` float32 [n], without DNSMOS."""
        clipped = 0
        if max(samples.max(), -samples.min()) >= CLIPPED_LEVEL:
            clipped = int(np.count_nonzero(np.abs(samples) >= CLIPPED_LEVEL))
        spectrum = Spectrum(samples, sample_rate)
        return cls(spectrum.integrated_loudness(), clipped / len(samples), spectrum.bandwidth())

    @classmethod
    def within(cls, limits: QualityLimits, samples: np.ndarray, sample_rate: int) -> Quality:
        """Measure `samples` and check them against `limits`.

        Raises:
            AudioError: with the reason "silent", "clipped" or "filtered" if a limit is exceeded.
        """
        quality = cls.of(samples, sample_rate)
        quality._check(limits)
        if limits.min_dnsmos is None:
            return quality
        score = overall_quality(samples, sample_rate)  # last: much slower than all other measures together
        if score < limits.min_dnsmos:
            raise AudioError(f"A DNSMOS of {score:g} is below {limits.min_dnsmos:g}.", "filtered")
        return replace(quality, dnsmos=score)

    def _check(self, limits: QualityLimits) -> None:
        wants_loudness = limits.min_loudness is not None or limits.max_loudness is not None
        if self.loudness is None:
            if wants_loudness:
                raise AudioError("No sound is above -70 LUFS.", "silent")
        elif limits.min_loudness is not None and self.loudness < limits.min_loudness:
            raise AudioError(f"{self.loudness:g} LUFS are below {limits.min_loudness:g}.", "filtered")
        elif limits.max_loudness is not None and self.loudness > limits.max_loudness:
            raise AudioError(f"{self.loudness:g} LUFS are above {limits.max_loudness:g}.", "filtered")
        if limits.max_clipping is not None and self.clipping > limits.max_clipping:
            raise AudioError(f"{self.clipping:.2%} of the samples are at full scale.", "clipped")
        if limits.min_bandwidth is not None and self.bandwidth < limits.min_bandwidth:
            raise AudioError(f"No sound is above {self.bandwidth:,} Hz.", "filtered")
