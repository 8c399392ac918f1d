"""Measures of a reconstruction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from codectok.audio.mel import LogMel

# Of a spectrogram: samples of the transform, of the window, between windows (Yamamoto et al. 2020).
STFT_RESOLUTIONS = ((512, 240, 50), (1024, 600, 120), (2048, 1200, 240))
SMALLEST_MAGNITUDE = 1e-5
# dB; what is equal to rounding has no more to say.
SI_SDR_LIMIT = 100.0


@torch.inference_mode()
def log_mel_error(log_mel: LogMel, original: Tensor, reconstruction: Tensor) -> float:
    """Mean absolute difference of the log-mels (natural logarithm) of two aligned clips [n] on the CPU.

    The longer clip is cut; clips shorter than the mel's reflection are extended with zeros.
    """
    length = min(len(original), len(reconstruction))
    pair = torch.stack([original[:length], reconstruction[:length]])
    missing = max(0, log_mel.config.padding + 1 - length)
    mels = log_mel(torch.nn.functional.pad(pair, (0, missing)).to(log_mel.window.device))
    return float((mels[0] - mels[1]).abs().mean())


@torch.inference_mode()
def stft_distance(original: Tensor, reconstruction: Tensor) -> float | None:
    """Distance of the magnitudes of two aligned clips [n]: the mean over three resolutions, 0 for equal clips.

    Of each resolution it is the spectral convergence, |S - S'| / |S| in Frobenius norms, plus the mean absolute
    difference of natural logarithms (Yamamoto et al. 2020, "Parallel WaveGAN", equations 3 to 5). Magnitudes below 1e-5
    count as that. None for an original that has no larger ones: a share of silence says nothing.
    """
    total = 0.0
    for n_fft, win_length, hop_length in STFT_RESOLUTIONS:
        window = torch.hann_window(win_length)
        first, second = (
            torch.stft(
                torch.nn.functional.pad(samples, (n_fft // 2, n_fft // 2)),
                *(n_fft, hop_length, win_length, window),
                center=False,
                return_complex=True,
            )
            .abs()
            .clamp(min=SMALLEST_MAGNITUDE)
            for samples in (original.float(), reconstruction.float())
        )
        if float(first.max()) <= SMALLEST_MAGNITUDE:
            return None
        convergence = torch.linalg.vector_norm(first - second) / torch.linalg.vector_norm(first)
        total += float(convergence + (first.log() - second.log()).abs().mean())
    return total / len(STFT_RESOLUTIONS)


@torch.inference_mode()
def si_sdr(original: Tensor, reconstruction: Tensor) -> float | None:
    """Scale-invariant ratio of signal to distortion in dB of two aligned clips [n]: the higher, the closer.

    Both lose their mean first (Le Roux et al. 2019, "SDR - half-baked or well done?"). From -100 to 100; None for an
    original that is silent, of which there is no part in anything.
    """
    target, heard = (samples.double() - samples.double().mean() for samples in (original, reconstruction))
    energy = float(target.square().sum())
    if energy <= 0:
        return None
    scaled = target * (float(target @ heard) / energy)
    signal, distortion = float(scaled.square().sum()), float((heard - scaled).square().sum())
    if signal <= 0:
        return -SI_SDR_LIMIT
    if distortion <= 0:
        return SI_SDR_LIMIT
    return min(SI_SDR_LIMIT, max(-SI_SDR_LIMIT, 10 * math.log10(signal / distortion)))
