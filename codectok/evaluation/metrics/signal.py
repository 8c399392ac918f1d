"""Signal metrics: log-mel and STFT distances, and the ratio of signal to distortion."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from codectok.audio.analysis.mel import LogMel
from codectok.codec import Codec
from codectok.codecs.base import AudioCodec
from codectok.config import MelConfig

from .base import Metric, Pair, Quantity, UndefinedMetricError
from .conditions import require_samples

# n_fft, win_length, hop_length in samples (Yamamoto et al. 2020).
STFT_RESOLUTIONS = ((512, 240, 50), (1024, 600, 120), (2048, 1200, 240))
SMALLEST_MAGNITUDE = 1e-5
# dB; larger values would measure rounding only.
SI_SDR_LIMIT = 100.0


def log_mel_of(codec: AudioCodec) -> LogMel:
    """Return the spectrogram that compares reconstructions of a codec: its own, or DistilCodec's at its rate."""
    if isinstance(codec, Codec):
        return codec.log_mel
    return _log_mel_at(codec.decoded_sample_rate).to(codec.device)


@torch.inference_mode()
def log_mel_error(log_mel: LogMel, original: Tensor, reconstruction: Tensor) -> float:
    """Mean absolute difference of the log-mel spectrograms (natural logarithm) of two aligned clips [n] on the CPU.

    The longer clip is cut; clips shorter than the reflection padding of the mel are padded with zeros.
    """
    length = min(len(original), len(reconstruction))
    pair = torch.stack([original[:length], reconstruction[:length]])
    missing = max(0, log_mel.config.padding + 1 - length)
    mels = log_mel(torch.nn.functional.pad(pair, (0, missing)).to(log_mel.window.device))
    return float((mels[0] - mels[1]).abs().mean())


@torch.inference_mode()
def stft_distance(original: Tensor, reconstruction: Tensor) -> float | None:
    """Multi-resolution STFT distance of two aligned clips [n]: the mean over three resolutions, 0 for equal clips.

    For each resolution: spectral convergence, |S - S'| / |S| in Frobenius norms, plus the mean absolute difference of
    natural logarithms (Yamamoto et al. 2020, "Parallel WaveGAN", equations 3 to 5). Magnitudes are clamped to at least
    1e-5.

    Returns:
        The distance; None if the original is silent at this floor, since it would be relative to silence.
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
    """Scale-invariant signal-to-distortion ratio of two aligned clips [n] in dB; higher is better.

    The mean of both clips is subtracted first (Le Roux et al. 2019, "SDR - half-baked or well done?").

    Returns:
        The ratio, clamped to -100 to 100; None if the original is silent.
    """
    target, estimate = (samples.double() - samples.double().mean() for samples in (original, reconstruction))
    energy = float(target.square().sum())
    if energy <= 0:
        return None
    scaled = target * (float(target @ estimate) / energy)
    signal, distortion = float(scaled.square().sum()), float((estimate - scaled).square().sum())
    if signal <= 0:
        return -SI_SDR_LIMIT
    if distortion <= 0:
        return SI_SDR_LIMIT
    return min(SI_SDR_LIMIT, max(-SI_SDR_LIMIT, 10 * math.log10(signal / distortion)))


class MelL1(Metric):
    """Mean absolute difference of DistilCodec's log-mel spectrograms at the clips' rate."""

    quantities = (Quantity("mel_l1", "lower", "mean absolute difference of DistilCodec's log-mels, natural logarithm"),)

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return `mel_l1`; undefined for clips shorter than a window of the spectrogram."""
        log_mel = _kept_log_mel(pair.original.sample_rate)
        require_samples(pair, log_mel.config.n_fft)
        return {"mel_l1": log_mel_error(log_mel, *_tensors(pair))}


class StftDistance(Metric):
    """Multi-resolution STFT distance, see `stft_distance`."""

    quantities = (
        Quantity("stft", "lower", "spectral convergence plus difference of log magnitudes, mean of three resolutions"),
    )

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return `stft`; undefined for clips shorter than the longest window."""
        require_samples(pair, max(n_fft for n_fft, _, _ in STFT_RESOLUTIONS))
        distance = stft_distance(*_tensors(pair))
        if distance is None:
            raise UndefinedMetricError("the original is silent")
        return {"stft": distance}


class SiSdr(Metric):
    """Scale-invariant signal-to-distortion ratio, see `si_sdr`."""

    quantities = (Quantity("si_sdr", "higher", "scale-invariant ratio of signal to distortion in dB, -100 to 100"),)

    def measure(self, pair: Pair) -> Mapping[str, float]:
        """Return `si_sdr`; -100 dB for a silent reconstruction."""
        ratio = si_sdr(*_tensors(pair))
        if ratio is None:
            raise UndefinedMetricError("the original is silent")
        return {"si_sdr": ratio}


def _log_mel_at(sample_rate: int) -> LogMel:
    default = MelConfig()
    return LogMel(MelConfig(sample_rate=sample_rate, f_max=min(default.f_max, sample_rate / 2)))


_kept_log_mel = functools.cache(_log_mel_at)


def _tensors(pair: Pair) -> tuple[Tensor, Tensor]:
    # Copies: arrays that workers share cannot be written, of which PyTorch warns.
    return torch.tensor(pair.original.samples), torch.tensor(pair.reconstruction.samples)
