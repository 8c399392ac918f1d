"""Loss of band envelopes, on which the intelligibility of speech depends."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# Those of STOI (Taal et al. 2011): half-overlapping windows, bands of a third of an octave, and excerpts of 30 frames.
WINDOW_SECONDS = 0.0256
LOWEST_BAND = 150.0
N_BANDS = 15
EXCERPT_FRAMES = 30
# Neighbouring excerpts differ little, so that every third one is enough.
EXCERPT_STEP = 3
# Envelopes are relative to a sine of full scale. Bands that change less than this are silent.
SILENT = 1e-3
SMALLEST = 1e-5


class EnvelopeLoss(nn.Module):
    """One minus the correlation of band envelopes, in excerpts of about 0.4 seconds.

    The level of a band does not matter, only how it changes. Silent bands of an original count as equal.

    Args:
        sample_rate: in hertz.

    Buffers (not saved): `window` periodic Hann; `bands` [n_fft // 2 + 1, n_bands], 1 for the frequencies of a band.
    """

    window: Tensor
    bands: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        size = 2 * round(WINDOW_SECONDS * sample_rate / 2)
        self._n_fft = 2 ** math.ceil(math.log2(size))
        frequencies = torch.linspace(0, sample_rate / 2, self._n_fft // 2 + 1)[:, None]
        centres = LOWEST_BAND * 2 ** (torch.arange(N_BANDS) / 3)
        lowest, highest = centres * 2 ** (-1 / 6), centres * 2 ** (1 / 6)
        bands = ((lowest <= frequencies) & (frequencies < highest)).float()
        self.register_buffer("bands", bands[:, highest <= sample_rate / 2], persistent=False)
        self.register_buffer("window", torch.hann_window(size), persistent=False)

    def forward(self, generated: Tensor, real: Tensor) -> Tensor:
        """Return the mean loss, between 0 and 2, of waveforms [B, T]."""
        changes, real_changes = self._changes(generated), self._changes(real)
        norms, real_norms = changes.norm(dim=-1), real_changes.norm(dim=-1)
        correlation = (changes * real_changes).sum(-1) / ((norms + SMALLEST) * (real_norms + SMALLEST))
        loss: Tensor = ((1 - correlation) * (real_norms > SILENT)).mean()
        return loss

    def _changes(self, waveform: Tensor) -> Tensor:
        """Envelopes around their mean in each excerpt, [B, n_excerpts, n_bands, n_frames]."""
        size = len(self.window)
        spectrum = torch.stft(
            waveform, self._n_fft, size // 2, size, self.window, pad_mode="constant", return_complex=True
        )
        scaled = torch.view_as_real(spectrum.transpose(1, 2) * (2 / self.window.sum()))
        envelopes = (scaled.square().sum(-1) @ self.bands + SMALLEST**2).sqrt()
        excerpts = envelopes.unfold(1, min(EXCERPT_FRAMES, envelopes.shape[1]), EXCERPT_STEP)
        return excerpts - excerpts.mean(-1, keepdim=True)
