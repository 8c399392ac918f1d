"""SpeechTokenizer, by the package `speechtokenizer`: 8 residual codebooks, 50 frames a second at 16 kHz."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from codectok.choices import Precision

from .codec import PackageCodec, package_class, unoptimized
from .files import ModelFiles


class SpeechTokenizer(PackageCodec):
    """A SpeechTokenizer; see `codectok.codecs.packages.codec.PackageCodec` for arguments."""

    package = "speechtokenizer"
    weight_files = ("SpeechTokenizer.pt", "ckpt.dev", "model.safetensors")

    def make_model(self, config: Mapping[str, Any]) -> Any:
        """Make the model of a configuration."""
        return package_class(self.package, "SpeechTokenizer")(config)

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return int(self.model.sample_rate)

    @property
    def frame_size(self) -> int:
        """Samples per code frame."""
        return int(self.model.downsample_rate)

    @property
    def codebook_size(self) -> int:
        """Number of codes in each codebook."""
        return int(self.model.quantizer.bins)

    @property
    def n_codebooks(self) -> int:
        """Codes per frame."""
        return int(self.model.n_q)

    @property
    def codebooks(self) -> Tensor:
        """Code vectors [n_codebooks, codebook_size, codebook_dim]."""
        return torch.stack([layer.codebook for layer in self.model.quantizer.vq.layers])

    def quantizer_input(self, samples: Tensor) -> Tensor:
        """Compute the features [rows, channels, n_frames] that are quantized."""
        with unoptimized():
            features: Tensor = self.model.encoder(samples[:, None])
        return features

    def encode_samples(self, samples: Tensor) -> Tensor:
        """Encode clips float32 [rows, n] to codes [rows, n_frames, n_codebooks]."""
        with unoptimized():
            codes: Tensor = self.model.encode(samples[:, None])  # [n_codebooks, rows, n_frames]
        return codes.permute(1, 2, 0)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Decode codes [1, n_frames, n_codebooks] to samples [1, n]."""
        with unoptimized():
            samples: Tensor = self.model.decode(codes.permute(2, 0, 1))
        return samples[:, 0]


def load(
    name: str, *, device: str = "auto", dtype: Precision = "float32", batch_seconds: float = 0.0
) -> SpeechTokenizer:
    """Load a SpeechTokenizer from a folder of the package's layout, or from the Hub; see `codectok.load_codec`."""
    return SpeechTokenizer(ModelFiles.find(name, SpeechTokenizer.weight_files), device, dtype, batch_seconds)
