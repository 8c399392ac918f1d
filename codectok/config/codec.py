"""Configuration of a codec: sizes and checks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, PositiveInt, Tag, model_validator

from .strict import StrictModel

MAX_CODEBOOK_SIZE = 1 << 24
# Bounds of sizes in files, far above those of any codec: a damaged file must not make us build millions of modules.
MAX_WIDTH = 1 << 16
MAX_SAMPLES = 1 << 16
MAX_MODULES = 4096
MAX_FACTOR = 1024
MAX_ENTRIES = 64
MAX_SAMPLE_RATE = 768_000
MAX_FRAME_SIZE = 1 << 20

Width = Annotated[int, Field(gt=0, le=MAX_WIDTH)]
Samples = Annotated[int, Field(gt=0, le=MAX_SAMPLES)]
Factor = Annotated[int, Field(gt=0, le=MAX_FACTOR)]
TimeFactors = Annotated[tuple[Factor, ...], Field(max_length=MAX_ENTRIES)]


class MelConfig(StrictModel):
    """Log-mel spectrogram.

    Attributes:
        sample_rate: sample rate of the codec in Hz.
        n_fft: samples of the Fourier transform.
        hop_length: samples from one frame to the next.
        win_length: samples of the Hann window.
        n_mels: number of mel bands.
        f_min: lowest frequency in Hz.
        f_max: highest frequency in Hz.
    """

    sample_rate: Annotated[int, Field(gt=0, le=MAX_SAMPLE_RATE)] = 24_000
    n_fft: Samples = 1024
    hop_length: Samples = 256
    win_length: Samples = 1024
    n_mels: Factor = 128
    f_min: float = 0.0
    f_max: float = 12_000.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.hop_length <= self.win_length <= self.n_fft:
            raise ValueError("hop_length <= win_length <= n_fft must hold")
        if (self.n_fft - self.hop_length) % 2:
            raise ValueError("n_fft - hop_length must be even, so that n samples have n // hop_length frames")
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError("0 <= f_min < f_max <= sample_rate / 2 must hold")
        return self

    @property
    def padding(self) -> int:
        """Reflected samples on each side, so that n samples have n // hop_length frames."""
        return (self.n_fft - self.hop_length) // 2


class EncoderConfig(StrictModel):
    """ConvNeXt encoder.

    Attributes:
        depths: number of blocks of each stage.
        dims: number of channels of each stage.
        kernel_size: frames that a depthwise convolution spans; odd.
        drop_path_rate: probability of dropping the last block in training; it grows linearly from 0 over the blocks.
    """

    depths: Annotated[tuple[PositiveInt, ...], Field(max_length=MAX_ENTRIES)] = (3, 3, 9, 3)
    dims: Annotated[tuple[Width, ...], Field(max_length=MAX_ENTRIES)] = (256, 512, 768, 1024)
    kernel_size: Factor = 7
    drop_path_rate: float = Field(default=0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.dims or len(self.depths) != len(self.dims):
            raise ValueError("depths and dims must have the same, non-zero number of entries")
        if sum(self.depths) > MAX_MODULES:
            raise ValueError(f"depths must add up to at most {MAX_MODULES:,} blocks")
        if self.kernel_size % 2 == 0:
            raise ValueError("kernel_size must be odd")
        return self


class VectorQuantizerConfig(StrictModel):
    """Grouped residual vector quantizer with exponential-moving-average (EMA) codebooks.

    Attributes:
        type: selects this quantizer.
        n_groups: groups that the features are split into.
        n_residuals: codebooks of each group; each quantizes the residual of the previous one.
        codebook_size: number of codes in a codebook.
        codebook_dim: width of the vectors of a codebook, to which each group is projected.
        time_factors: factors of learned downsampling, one per stage; (1,) keeps the frame rate.
        ema_decay: decay of the moving averages per training step.
        expiry_share: codes used less than this share of uniform use in a window of many steps are replaced by recent
            features; 0 disables this.
    """

    type: Literal["grvq"] = "grvq"
    n_groups: Factor = 1
    n_residuals: Factor = 1
    codebook_size: Annotated[int, Field(ge=2, le=MAX_CODEBOOK_SIZE)] = 32_768
    codebook_dim: Width = 3584
    time_factors: TimeFactors = (1,)
    ema_decay: float = Field(default=0.8, gt=0, lt=1)
    expiry_share: float = Field(default=0.05, ge=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.n_codebooks > MAX_MODULES:
            raise ValueError(f"n_groups x n_residuals must be at most {MAX_MODULES:,} codebooks")
        return self

    @property
    def n_codebooks(self) -> int:
        """Codes per frame."""
        return self.n_groups * self.n_residuals


class _OneCodebook(StrictModel):
    """A quantizer with a single codebook."""

    @property
    def n_codebooks(self) -> int:
        """Codes per frame."""
        return 1

    @property
    def n_residuals(self) -> int:
        """Codebooks that refine each other."""
        return 1


class SimVectorQuantizerConfig(_OneCodebook):
    """SimVQ (Zhu et al. 2024): one codebook, learned as fixed codes and a linear map.

    A training step multiplies `codebook_size` codes by a matrix [codebook_dim, codebook_dim].

    Attributes:
        type: selects this quantizer.
        codebook_size: number of codes.
        codebook_dim: width of the codes, to which features are projected.
        time_factors: factors of learned downsampling, one per stage; (1,) keeps the frame rate.
    """

    type: Literal["simvq"] = "simvq"
    codebook_size: Annotated[int, Field(ge=2, le=MAX_CODEBOOK_SIZE)] = 32_768
    codebook_dim: Width = 512
    time_factors: TimeFactors = (1,)


class FiniteScalarQuantizerConfig(_OneCodebook):
    """Finite scalar quantizer (Mentzer et al. 2023): one code per frame, from a codebook of prod(levels) codes.

    Attributes:
        type: selects this quantizer.
        levels: number of values of each dimension.
        time_factors: factors of learned downsampling, one per stage; (1,) keeps the frame rate.
    """

    type: Literal["fsq"] = "fsq"
    levels: Annotated[tuple[Annotated[int, Field(ge=2, le=256)], ...], Field(max_length=MAX_ENTRIES)] = (8, 8, 8, 8, 8)
    time_factors: TimeFactors = (1,)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.levels or self.codebook_size > MAX_CODEBOOK_SIZE:
            raise ValueError(f"levels must multiply to a codebook of 2 to {MAX_CODEBOOK_SIZE:,} codes")
        return self

    @property
    def codebook_size(self) -> int:
        """Number of codes in the codebook."""
        return math.prod(self.levels)


QuantizerConfig = Annotated[
    VectorQuantizerConfig | SimVectorQuantizerConfig | FiniteScalarQuantizerConfig, Field(discriminator="type")
]


class DecoderConfig(StrictModel):
    """HiFi-GAN decoder; the number of channels halves at each upsampling.

    Attributes:
        initial_channels: number of channels before the first upsampling.
        upsample_rates: factor of each upsampling; their product is the hop length of the mel.
        upsample_kernel_sizes: kernel size of each upsampling.
        resblock_kernel_sizes: kernel sizes of the parallel residual blocks after each upsampling.
        resblock_dilations: dilations of each of these blocks.
        pre_kernel_size: kernel size of the first convolution.
        post_kernel_size: kernel size of the last convolution.
    """

    initial_channels: Width = 1024
    upsample_rates: TimeFactors = (8, 4, 2, 2, 2)
    upsample_kernel_sizes: TimeFactors = (16, 12, 4, 4, 4)
    resblock_kernel_sizes: TimeFactors = (3, 7, 11)
    resblock_dilations: Annotated[tuple[TimeFactors, ...], Field(max_length=MAX_ENTRIES)] = (
        (1, 3, 5),
        (1, 3, 5),
        (1, 3, 5),
    )
    pre_kernel_size: Factor = 13
    post_kernel_size: Factor = 13

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.upsample_rates) != len(self.upsample_kernel_sizes):
            raise ValueError("upsample_rates and upsample_kernel_sizes must have the same number of entries")
        if self.n_blocks > MAX_MODULES:
            raise ValueError(f"upsample_rates x resblock_dilations must be at most {MAX_MODULES:,} convolutions")
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilations):
            raise ValueError("resblock_kernel_sizes and resblock_dilations must have the same number of entries")
        if not self.resblock_kernel_sizes:
            raise ValueError("resblock_kernel_sizes must have at least one entry")
        for rate, kernel_size in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True):
            if kernel_size < rate or (kernel_size - rate) % 2:
                raise ValueError(f"upsampling kernel {kernel_size} must exceed its rate {rate} by an even number")
        if any(size % 2 == 0 for size in (*self.resblock_kernel_sizes, self.pre_kernel_size, self.post_kernel_size)):
            raise ValueError("convolution kernel sizes must be odd")
        if self.initial_channels % 2 ** len(self.upsample_rates):
            raise ValueError(f"initial_channels must be divisible by 2^{len(self.upsample_rates)}, one per upsampling")
        return self

    @property
    def n_blocks(self) -> int:
        """Dilated convolutions of all residual blocks."""
        return len(self.upsample_rates) * sum(map(len, self.resblock_dilations))


class InverseSTFTDecoderConfig(StrictModel):
    """Decoder of ConvNeXt blocks and an inverse Fourier transform (Vocos).

    Attributes:
        type: selects this decoder.
        dim: number of channels.
        depth: number of blocks.
        kernel_size: frames that a depthwise convolution spans; odd.
        n_fft: samples of the Fourier transform, a multiple of the mel's hop.
    """

    type: Literal["istft"]
    dim: Width = 384
    depth: Factor = 8
    kernel_size: Factor = 7
    n_fft: Samples = 1024

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kernel_size % 2 == 0:
            raise ValueError("kernel_size must be odd")
        return self

    @property
    def n_blocks(self) -> int:
        """ConvNeXt blocks."""
        return self.depth


def _decoder_type(value: Any) -> str:
    """Type of a decoder; configurations of HiFi-GAN decoders do not name it."""
    found = value.get("type", "hifigan") if isinstance(value, Mapping) else getattr(value, "type", "hifigan")
    return str(found)


AnyDecoderConfig = Annotated[
    Annotated[DecoderConfig, Tag("hifigan")] | Annotated[InverseSTFTDecoderConfig, Tag("istft")],
    Discriminator(
        _decoder_type,
        custom_error_type="decoder_type",
        custom_error_message="type must be istft, or be left out for a HiFi-GAN decoder",
    ),
]


class CodecConfig(StrictModel):
    """Architecture of a codec.

    Attributes:
        name: name that tables and reports show.
        mel: spectrogram that the encoder reads.
        encoder: spectrogram to features.
        quantizer: features to codes and back.
        decoder: features to waveform.
        left_pad: zero samples added before every clip; imported DistilCodec checkpoints expect one.
    """

    name: str = "custom"
    mel: MelConfig = MelConfig()
    encoder: EncoderConfig = EncoderConfig()
    quantizer: QuantizerConfig = VectorQuantizerConfig()
    decoder: AnyDecoderConfig = DecoderConfig()
    left_pad: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.decoder, InverseSTFTDecoderConfig):
            if self.decoder.n_fft % (2 * self.mel.hop_length):
                raise ValueError(f"decoder.n_fft must be an even multiple of the hop {self.mel.hop_length}")
            if self.mel.hop_length % 2:  # both ends of the waveform are cut by half of n_fft - hop
                raise ValueError(f"decoder istft needs an even hop, not {self.mel.hop_length}")
        elif (upsampling := math.prod(self.decoder.upsample_rates)) != self.mel.hop_length:
            raise ValueError(f"decoder.upsample_rates multiply to {upsampling}, not to the hop {self.mel.hop_length}")
        if self.frame_size > MAX_FRAME_SIZE:
            raise ValueError(f"time_factors make a frame of {self.frame_size} samples, above {MAX_FRAME_SIZE:,}")
        if self.left_pad >= self.mel.hop_length:
            raise ValueError(f"left_pad {self.left_pad} must be below the hop of {self.mel.hop_length} samples")
        if isinstance(self.quantizer, VectorQuantizerConfig) and self.feature_dim % self.quantizer.n_groups:
            raise ValueError(f"encoder width {self.feature_dim} cannot be split into {self.quantizer.n_groups} groups")
        return self

    @property
    def feature_dim(self) -> int:
        """Channels of the features between encoder, quantizer and decoder."""
        return self.encoder.dims[-1]

    @property
    def n_modules(self) -> int:
        """Number of blocks, codebooks and convolutions, each of which has tensors: a lower bound of their number."""
        encoder = sum(self.encoder.depths) + len(self.encoder.dims)
        learned = 0 if isinstance(self.quantizer, FiniteScalarQuantizerConfig) else self.quantizer.n_codebooks
        return encoder + learned + 2 * len(self.quantizer.time_factors) + self.decoder.n_blocks

    @property
    def time_factor(self) -> int:
        """Mel frames per code frame."""
        return math.prod(self.quantizer.time_factors)

    @property
    def frame_size(self) -> int:
        """Samples per code frame."""
        return self.mel.hop_length * self.time_factor

    @property
    def frame_rate(self) -> float:
        """Code frames per second."""
        return self.mel.sample_rate / self.frame_size

    @property
    def min_samples(self) -> int:
        """Zeros extend shorter clips to this length: one frame, and enough samples for the mel's reflection."""
        return max(self.frame_size, self.mel.padding + 1)

    def canonical_json(self, with_decoder: bool = True) -> str:
        """Serialize the fields that affect codes and waveforms, always to the same bytes.

        The name and training settings are left out.

        Args:
            with_decoder: False for the fields that affect codes only.
        """
        training = {"encoder": {"drop_path_rate"}, "quantizer": {"ema_decay", "expiry_share"}}
        aside: dict[str, Any] = {"name": True, **training, **({} if with_decoder else {"decoder": True})}
        return json.dumps(self.model_dump(mode="json", exclude=aside), sort_keys=True)

    def n_frames(self, n_samples: int) -> int:
        """Number of code frames of a clip of `n_samples` samples at the codec's rate."""
        return max(1, n_samples // self.frame_size)
