"""The codec's network: encoder, quantizer and decoder as one module."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codectok.config import CodecConfig

from .convnext import ConvNeXtEncoder
from .hifigan import HiFiGANDecoder
from .quantization import build_quantizer
from .quantization.temporal import TemporalQuantizerOutput


@dataclass
class NetworkOutput:
    """A training pass: `waveform` [B, n_samples] and what the quantizer reported."""

    waveform: Tensor
    quantizer: TemporalQuantizerOutput


class CodecNetwork(nn.Module):
    """Log-mel to codes, codes to waveform."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.feature_dim
        self.encoder = ConvNeXtEncoder(config.encoder, config.mel.n_mels)
        self.quantizer = build_quantizer(config.quantizer, dim)
        self.decoder = HiFiGANDecoder(config.decoder, dim)

    def forward(self, log_mel: Tensor) -> NetworkOutput:
        """Reconstruct waveforms from `log_mel` [B, T, n_mels], with gradients."""
        quantized = self.quantizer(self.encoder(log_mel))
        return NetworkOutput(self.decoder(quantized.features), quantized)

    def encode(self, log_mel: Tensor) -> Tensor:
        """Codes [B, T', n_codebooks] of `log_mel` [B, T, n_mels]."""
        return self.quantizer.encode(self.encoder(log_mel))

    def decode(self, codes: Tensor) -> Tensor:
        """Waveform [B, T' * frame_size] of `codes` [B, T', n_codebooks]."""
        return self.decoder(self.quantizer.decode(codes))

    def prepare_for_training(self) -> None:
        """Add weight norm to the decoder, and to the quantizer what it learns by."""
        self.decoder.add_weight_norm()
        self.quantizer.prepare_for_training()

    @torch.no_grad()
    def inference_state_dict(self) -> dict[str, Tensor]:
        """The tensors of a plain network: weight norm folded, nothing that only training needs."""
        with torch.device("meta"):
            plain = CodecNetwork(self.config)
        state = self.state_dict()
        modules = dict(self.named_modules())
        folded = {}
        for key in plain.state_dict():
            owner, _, name = key.rpartition(".")
            # A weight-normed kernel is computed on access and stands in no state dict under its own name.
            folded[key] = state[key] if key in state else getattr(modules[owner], name)
        return {key: tensor.detach().float().clone() for key, tensor in folded.items()}
