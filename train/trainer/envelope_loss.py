"""Loss of band envelopes, on which the intelligibility of speech depends."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from codectok.errors import ConfigError

# Parameters of STOI (Taal et al. 2011): half-overlapping windows, bands of a third of an octave, excerpts of 30 frames.
# Unlike STOI, nothing is resampled or clipped, and quiet frames stay.
WINDOW_SECONDS = 0.0256
LOWEST_BAND = 150.0
N_BANDS = 15
EXCERPT_FRAMES = 30
# Neighbouring excerpts differ little, so that every third one is enough.
EXCERPT_STEP = 3
# Smallest change of a band that counts, as a share of its level in the excerpt, and in full scale.
SMALLEST_SHARE = 0.1
SMALLEST_CHANGE = 1e-4
# Added below square roots, whose gradient is not finite at zero.
FLOOR = SMALLEST_CHANGE**2 / 100


class EnvelopeLoss(nn.Module):
    """One minus the correlation of band envelopes, in excerpts of about 0.4 seconds.

    The level of a band does not matter, unless it is much lower than the original's: only how it changes. Bands that
    are silent or steady in the original cost nothing.

    Args:
        sample_rate: in hertz.

    Buffers (not saved): `window` periodic Hann; `bands` [n_fft // 2 + 1, n_bands], 1 for the frequencies of a band.

    Attributes:
        min_samples: length of an excerpt.

    Raises:
        ConfigError: no band lies below half of the sample rate.
    """

    window: Tensor
    bands: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        size = 2 * round(WINDOW_SECONDS * sample_rate / 2)
        self._n_fft, self._hop_length = 2 ** math.ceil(math.log2(max(2, size))), max(1, size // 2)
        self.min_samples = self._n_fft + (EXCERPT_FRAMES - 1) * self._hop_length
        frequencies = torch.linspace(0, sample_rate / 2, self._n_fft // 2 + 1)[:, None]
        centres = LOWEST_BAND * 2 ** (torch.arange(N_BANDS) / 3)
        lowest, highest = centres * 2 ** (-1 / 6), centres * 2 ** (1 / 6)
        bands = ((lowest <= frequencies) & (frequencies < highest)).float()[:, highest <= sample_rate / 2]
        if not bands.any():
            raise ConfigError(f"A codec at {sample_rate} Hz has no bands of speech; leave loss.envelope out.")
        self.register_buffer("bands", bands, persistent=False)
        self.register_buffer("window", torch.hann_window(size), persistent=False)

    def forward(self, generated: Tensor, real: Tensor) -> Tensor:
        """Return the mean loss, between 0 and 2, of waveforms [B, T] of at least `min_samples` samples."""
        changes, _ = self._excerpts(generated)
        real_changes, levels = self._excerpts(real)
        smallest = (SMALLEST_SHARE * levels).clamp(min=SMALLEST_CHANGE)
        size, real_size = _root_mean_square(changes), _root_mean_square(real_changes)
        correlation = (changes * real_changes).mean(-1) / (size.maximum(smallest) * real_size.maximum(smallest))
        loss: Tensor = ((1 - correlation) * (real_size > smallest)).mean()
        return loss

    def _excerpts(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Changes of the envelopes in each excerpt, [B, n_excerpts, n_bands, n_frames], and their levels."""
        size = len(self.window)
        spectrum = torch.stft(
            waveform, self._n_fft, self._hop_length, size, self.window, center=False, return_complex=True
        )
        # A sine of full scale has the envelope 1.
        scale = 4 / (self._n_fft * self.window.square().sum())
        power = torch.view_as_real(spectrum.transpose(1, 2)).square().sum(-1) * scale
        envelopes = (power @ self.bands + FLOOR).sqrt()
        excerpts = envelopes.unfold(1, EXCERPT_FRAMES, EXCERPT_STEP)
        means = excerpts.mean(-1, keepdim=True)
        return excerpts - means, means.squeeze(-1)


def _root_mean_square(values: Tensor) -> Tensor:
    return (values.square().mean(-1) + FLOOR).sqrt()
