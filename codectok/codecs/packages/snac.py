"""SNAC, by the package `snac`: codebooks of several frame rates, flattened to frames of the coarsest one.

A frame holds the codes of its time span, coarse before fine: each code is followed by the finer codes of its own share
of the span. With three levels of 1, 2 and 4 codes a frame is

    level 1   level 2   level 3   level 3   level 2   level 3   level 3

that is, seven slots of which each counts as a codebook.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from codectok.choices import Precision
from codectok.errors import CheckpointError

from .codec import PackageCodec, package_class, unoptimized
from .files import ModelFiles

# Decoders add noise, which must not change from one call to the next.
NOISE_SEED = 0


class Flattening:
    """Order of the codes of several levels within a frame of the coarsest level.

    Args:
        strides: frames of the finest rate for each code of a level, the coarsest level first; each divides the one
            before.

    Attributes:
        levels: level of each slot.
        positions: position of each slot's code among those of its level in the frame.

    Raises:
        ValueError: the strides do not divide each other.
    """

    def __init__(self, strides: Sequence[int]) -> None:
        if not strides or min(strides) < 1 or any(before % one for before, one in pairwise(strides)):
            raise ValueError(f"levels with strides {list(strides)} do not share frames")
        self.counts = [strides[0] // stride for stride in strides]
        # By the beginning of its span, then from coarse to fine.
        slots = [
            (position * stride, level, position)
            for level, stride in enumerate(strides)
            for position in range(strides[0] // stride)
        ]
        slots.sort()
        self.levels = [level for _, level, _ in slots]
        self.positions = [position for _, _, position in slots]

    def flatten(self, codes: Sequence[Tensor]) -> Tensor:
        """Flatten codes [rows, n_frames * count] of each level to [rows, n_frames, n_slots]."""
        levels = [one.reshape(len(one), -1, count) for one, count in zip(codes, self.counts, strict=True)]
        return torch.stack(
            [levels[level][..., place] for level, place in zip(self.levels, self.positions, strict=True)], -1
        )

    def levels_of(self, codes: Tensor) -> list[Tensor]:
        """Return the codes of each level, the inverse of `flatten`."""
        slots = [[place for place, own in enumerate(self.levels) if own == level] for level in range(len(self.counts))]
        return [codes[..., own].flatten(1) for own in slots]


class Snac(PackageCodec):
    """A SNAC; see `codectok.codecs.packages.codec.PackageCodec` for arguments."""

    package = "snac"
    weight_files = ("pytorch_model.bin", "model.safetensors")

    def make_model(self, config: Mapping[str, Any]) -> Any:
        """Make the model of a configuration."""
        return package_class(self.package, "SNAC")(**config)

    def check_model(self, files: ModelFiles) -> None:
        """Raise a `CheckpointError` if the levels do not share frames."""
        try:
            self._flattening = Flattening([int(stride) for stride in self.model.vq_strides])
        except ValueError as error:
            raise CheckpointError(f"The configuration of {files.name} is not valid: {error}.") from None
        # Attention pads clips to whole windows, which hold several frames.
        if self._span != self.frame_size:
            self.frame_rounding = None

    @property
    def _span(self) -> int:
        """Samples to whose multiples the model pads clips."""
        return int(self.model.preprocess(torch.zeros(1, 1, 1, device=self.device)).shape[-1])

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return int(self.model.sampling_rate)

    @property
    def frame_size(self) -> int:
        """Samples per frame of the coarsest level."""
        return int(self.model.hop_length) * int(self.model.vq_strides[0])

    @property
    def codebook_size(self) -> int:
        """Number of codes in each codebook."""
        return int(self.model.codebook_size)

    @property
    def n_codebooks(self) -> int:
        """Slots of a frame."""
        return len(self._flattening.levels)

    @property
    def codebooks(self) -> Tensor:
        """Code vectors [n_codebooks, codebook_size, codebook_dim]; slots of one level have the same."""
        return torch.stack(
            [self.model.quantizer.quantizers[level].codebook.weight for level in self._flattening.levels]
        )

    def quantizer_input(self, samples: Tensor) -> Tensor:
        """Compute the features [rows, channels, n] that are quantized."""
        with unoptimized():
            features: Tensor = self.model.encoder(self.model.preprocess(samples[:, None]))
        return features

    def encode_samples(self, samples: Tensor) -> Tensor:
        """Encode clips float32 [rows, n] to codes [rows, n_frames, n_codebooks]."""
        with unoptimized():
            return self._flattening.flatten(self.model.encode(samples[:, None]))

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Decode codes [1, n_frames, n_codebooks] to samples [1, n]."""
        devices = [self.device] if self.device.type == "cuda" else []
        with unoptimized(), torch.random.fork_rng(devices):
            torch.manual_seed(NOISE_SEED)
            samples: Tensor = self.model.decode(self._flattening.levels_of(codes))
        return samples[:, 0]


def load(name: str, *, device: str = "auto", dtype: Precision = "float32", batch_seconds: float = 0.0) -> Snac:
    """Load a SNAC from a folder of the package's layout, or from the Hub; see `codectok.load_codec`."""
    return Snac(ModelFiles.find(name, Snac.weight_files), device, dtype, batch_seconds)
