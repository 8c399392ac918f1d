"""BigCodec, by the package `bigcodec`: one codebook, 80 codes a second at 16 kHz in its published model."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from codectok.choices import Precision
from codectok.description import FrameRounding

from .codec import PackageCodec, package_class
from .files import ModelFiles

# Configurations do not say it.
SAMPLE_RATE = 16_000


class BigCodec(PackageCodec):
    """A BigCodec; see `codectok.codecs.packages.codec.PackageCodec` for arguments."""

    package = "bigcodec"
    weight_files = ("model.safetensors", "pytorch_model.bin")
    frame_rounding: FrameRounding | None = None  # strides round down and up in turn

    def make_model(self, config: Mapping[str, Any]) -> Any:
        """Make the model of a configuration."""
        return package_class(self.package, "BigCodec")(**config)

    @property
    def sample_rate(self) -> int:
        """16 kHz."""
        return SAMPLE_RATE

    @property
    def frame_size(self) -> int:
        """Samples per code frame."""
        return prod(map(int, self.model.decoder.up_ratios))

    @property
    def codebook_size(self) -> int:
        """Number of codes in each codebook."""
        return int(self.codebooks.shape[1])

    @property
    def n_codebooks(self) -> int:
        """Codes per frame."""
        return len(self.model.decoder.quantizer.layers)

    @property
    def codebooks(self) -> Tensor:
        """Code vectors [n_codebooks, codebook_size, codebook_dim]."""
        return torch.stack([layer.codebook.weight for layer in self.model.decoder.quantizer.layers])

    def quantizer_input(self, samples: Tensor) -> Tensor:
        """Compute the features [rows, channels, n_frames] that are quantized."""
        features: Tensor = self.model.encoder(samples[:, None])
        return features

    def encode_samples(self, samples: Tensor) -> Tensor:
        """Encode clips float32 [rows, n] to codes [rows, n_frames, n_codebooks]."""
        codes: Tensor = self.model.encode(samples[:, None])  # [n_codebooks, rows, n_frames]
        return codes.permute(1, 2, 0)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Decode codes [1, n_frames, n_codebooks] to samples [1, n]."""
        samples: Tensor = self.model.decode(codes.transpose(1, 2))
        return samples[:, 0]


def load(name: str, *, device: str = "auto", dtype: Precision = "float32", batch_seconds: float = 0.0) -> BigCodec:
    """Load a BigCodec from a folder of the package's layout, or from the Hub; see `codectok.load_codec`."""
    return BigCodec(ModelFiles.find(name, BigCodec.weight_files), device, dtype, batch_seconds)
