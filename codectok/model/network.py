"""The codec network: encoder, quantizer and decoder as one module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from codectok.config import CodecConfig, InverseSTFTDecoderConfig
from codectok.model.quantization.build import build_quantizer
from codectok.model.quantization.temporal import TemporalQuantizerOutput

from . import hifigan, inverse_stft
from .convnext import ConvNeXtEncoder
from .hifigan import HiFiGANDecoder
from .inverse_stft import InverseSTFTDecoder


@dataclass
class NetworkOutput:
    """Result of a training pass.

    Attributes:
        waveform: reconstruction [B, n_samples].
        quantizer: output of the quantizer.
    """

    waveform: Tensor
    quantizer: TemporalQuantizerOutput


class CodecNetwork(nn.Module):
    """Maps log-mel frames to codes, and codes to waveforms."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.feature_dim
        self.encoder = ConvNeXtEncoder(config.encoder, config.mel.n_mels)
        self.quantizer = build_quantizer(config.quantizer, dim)
        self.decoder = _build_decoder(config)
        self._codes_fixed = False

    def forward(self, log_mel: Tensor) -> NetworkOutput:
        """Reconstruct waveforms from `log_mel` [B, T, n_mels] with gradients."""
        quantized = self.quantizer(self.encoder(log_mel))
        return NetworkOutput(self.decoder(quantized.features), quantized)

    def encode(self, log_mel: Tensor) -> Tensor:
        """Encode `log_mel` [B, T, n_mels] to codes [B, T', n_codebooks]."""
        return self.quantizer.encode(self.encoder(log_mel))

    def decode(self, codes: Tensor) -> Tensor:
        """Decode `codes` [B, T', n_codebooks] to waveforms [B, T' * frame_size]."""
        waveform: Tensor = self.decoder(self.quantizer.decode(codes))
        return waveform

    def prepare_for_training(self) -> None:
        """Add weight norm to the decoder and codebook statistics to the quantizer."""
        self.decoder.prepare_for_training()
        self.quantizer.prepare_for_training()

    def fix_codes(self) -> None:
        """Keep encoder and quantizer as they are: without gradients, and in evaluation mode from now on."""
        self._codes_fixed = True
        for part in (self.encoder, self.quantizer):
            part.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode, of the decoder only after `fix_codes`."""
        super().train(mode)
        if self._codes_fixed:
            self.fix_codes()
        return self

    @torch.no_grad()
    def inference_state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that inference needs, with weight norm folded."""
        with torch.device("meta"):
            plain = CodecNetwork(self.config)
        state = self.state_dict()
        modules = dict(self.named_modules())
        folded = {}
        for key in plain.state_dict():
            owner, _, name = key.rpartition(".")
            # A weight-normed kernel is computed on access; the state dict holds its magnitude and direction only.
            folded[key] = state[key] if key in state else getattr(modules[owner], name)
        return {key: tensor.detach().float().clone() for key, tensor in folded.items()}


def mel_receptive_field(config: CodecConfig) -> int:
    """Number of mel frames on each side of a frame that the decoder's samples of it depend on."""
    if isinstance(config.decoder, InverseSTFTDecoderConfig):
        return inverse_stft.receptive_field(config.decoder, config.mel.hop_length)
    return hifigan.receptive_field(config.decoder)


def _build_decoder(config: CodecConfig) -> HiFiGANDecoder | InverseSTFTDecoder:
    if isinstance(config.decoder, InverseSTFTDecoderConfig):
        return InverseSTFTDecoder(config.decoder, config.feature_dim, config.mel.hop_length)
    return HiFiGANDecoder(config.decoder, config.feature_dim)
