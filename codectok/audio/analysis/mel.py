"""Log-mel spectrogram of DistilCodec."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from codectok.config import MelConfig
from codectok.device import no_autocast


class LogMel(nn.Module):
    """Natural logarithm of a Slaney mel spectrogram of magnitudes, with reflected edges.

    Buffers (not saved): `window` [win_length] periodic Hann; `filter_bank` [n_fft // 2 + 1, n_mels].
    """

    window: Tensor
    filter_bank: Tensor

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.win_length), persistent=False)
        filter_bank = melscale_fbanks(
            n_freqs=config.n_fft // 2 + 1,
            f_min=config.f_min,
            f_max=config.f_max,
            n_mels=config.n_mels,
            sample_rate=config.sample_rate,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("filter_bank", filter_bank, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Compute the log-mel [B, n_samples // hop_length, n_mels] of `waveform` [B, n_samples], always in float32."""
        with no_autocast(waveform):
            return self._log_mel(waveform.float())

    def of_windows(self, windows: Tensor) -> Tensor:
        """Compute the log-mel [T, n_mels] of `windows` float32 [T, n_fft], one window of samples for each frame."""
        missing = self.config.n_fft - self.config.win_length
        shape = F.pad(self.window, (missing // 2, missing - missing // 2))
        return self._of_spectrum(torch.fft.rfft(windows * shape))

    def _log_mel(self, waveform: Tensor) -> Tensor:
        config = self.config
        edges = (config.padding, config.padding)
        padded = F.pad(waveform.unsqueeze(1), edges, mode="reflect").squeeze(1)
        spectrum = torch.stft(
            padded, config.n_fft, config.hop_length, config.win_length, self.window, center=False, return_complex=True
        )
        return self._of_spectrum(spectrum.transpose(1, 2))

    def _of_spectrum(self, spectrum: Tensor) -> Tensor:
        # 1e-6 keeps the gradient of the square root finite at silence, as in the reference.
        magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-6)
        return (magnitude @ self.filter_bank).clamp(min=1e-5).log()
