"""Multi-resolution log-mel distance."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from .base import Metric, Pair, Quantity
from .conditions import require_samples

# Window in samples and mel bands (Kumar et al. 2023, the losses of the Descript Audio Codec).
RESOLUTIONS = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
SMALLEST_MAGNITUDE = 1e-5


class MultiMel(Metric):
    """Multi-resolution log-mel distance (Kumar et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN").

    For each resolution: the mean absolute difference of the decimal logarithms of mel magnitudes, of at least 1e-5.
    Spectra have periodic Hann windows, a quarter of the window between frames, and reflected edges; mel bands are
    Slaney's, from 0 Hz to half of the sample rate. The distance is the sum over the resolutions.
    """

    quantities = (
        Quantity("mel", "lower", "difference of log10 mel magnitudes, sum over windows of 32 to 2,048 samples"),
    )

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return `mel`; undefined for clips shorter than the longest window."""
        require_samples(pair, max(size for size, _ in RESOLUTIONS))
        original, reconstruction = (torch.tensor(one.samples) for one in (pair.original, pair.reconstruction))
        return {"mel": multi_mel_distance(original, reconstruction, pair.original.sample_rate)}


@torch.inference_mode()
def multi_mel_distance(original: Tensor, reconstruction: Tensor, sample_rate: int) -> float:
    """Return the distance of two clips [n] of one length of at least 2,048 samples; 0 for equal clips."""
    total = 0.0
    for size, bands in RESOLUTIONS:
        first, second = (
            _log_mel(samples.float(), size, _filters(sample_rate, size, bands))
            for samples in (original, reconstruction)
        )
        total += float((first - second).abs().mean(dtype=torch.float64))
    return total


def _log_mel(samples: Tensor, size: int, filters: Tensor) -> Tensor:
    window = torch.hann_window(size)
    spectrum = torch.stft(samples, size, size // 4, window=window, pad_mode="reflect", return_complex=True)
    return (spectrum.abs().T @ filters).clamp(min=SMALLEST_MAGNITUDE).log10()


@functools.cache
def _filters(sample_rate: int, size: int, bands: int) -> Tensor:
    """Mel filters [size // 2 + 1, bands]."""
    with warnings.catch_warnings():
        # Bands narrower than a bin are zero for both clips.
        warnings.filterwarnings("ignore", message=".*mel filterbank has all zero values")
        filters: Tensor = melscale_fbanks(
            n_freqs=size // 2 + 1,
            f_min=0.0,
            f_max=sample_rate / 2,
            n_mels=bands,
            sample_rate=sample_rate,
            norm="slaney",
            mel_scale="slaney",
        )
    return filters
