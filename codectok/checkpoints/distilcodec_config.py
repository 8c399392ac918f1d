"""Converts the configuration of a DistilCodec checkpoint to a `CodecConfig`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from codectok.config import MAX_SAMPLE_RATE, CodecConfig, load_mapping, parse
from codectok.errors import CheckpointError

CONFIG_FILES = ("model_config.json", "codec_config.json")
LEFT_PAD = 1  # the reference adds one zero sample before every clip at inference


class _Spectrogram(BaseModel):
    sampling_rate: Annotated[int, Field(gt=0, le=MAX_SAMPLE_RATE)]
    num_mels: int
    n_fft: int
    hop_size: int
    win_size: int
    fmin: float
    fmax: float | None


class _Encoder(BaseModel):
    input_channels: int
    depths: tuple[int, ...]
    dims: Annotated[tuple[int, ...], Field(min_length=1)]
    drop_path_rate: float = 0.0
    kernel_size: int


class _Decoder(BaseModel):
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    num_mels: int
    upsample_initial_channel: int
    use_template: Literal[False] = False
    pre_conv_kernel_size: int
    post_conv_kernel_size: int


class _Quantizer(BaseModel):
    quantizer_type: Literal["grvq"]
    input_dim: int
    n_groups: int
    n_codebooks: int
    codebook_size: int
    codebook_dim: int
    downsample_factor: tuple[int, ...]
    ema_decay: float


class _ReferenceConfig(BaseModel):
    """The sections of `model_config.json` that inference needs; training settings are not read."""

    spec_transform: _Spectrogram
    encoder: _Encoder
    decoder: _Decoder
    quantizer: _Quantizer


def read_config(directory: Path) -> CodecConfig:
    """Read `model_config.json` (or `codec_config.json`) of `directory`.

    Raises:
        CheckpointError: there is no such file, or its sections do not agree.
        ConfigError: the configuration is not supported.
    """
    paths = [directory / name for name in CONFIG_FILES if (directory / name).is_file()]
    if not paths:
        raise CheckpointError(f"{directory} holds no {CONFIG_FILES[0]}; put it beside the checkpoint.")
    path = paths[0]
    reference = parse(_ReferenceConfig, load_mapping(path), str(path))
    _check_widths(reference, path)
    return parse(CodecConfig, _our_fields(reference), str(path))


def _check_widths(reference: _ReferenceConfig, path: Path) -> None:
    width = reference.encoder.dims[-1]
    for name, value, expected in (
        ("encoder.input_channels", reference.encoder.input_channels, reference.spec_transform.num_mels),
        ("spec_transform.win_size", reference.spec_transform.win_size, reference.spec_transform.n_fft),
        ("quantizer.input_dim", reference.quantizer.input_dim, width),
        ("decoder.num_mels", reference.decoder.num_mels, width),
    ):
        if value != expected:
            raise CheckpointError(f"{path}: {name} is {value}, but the other sections need {expected}.")


def _our_fields(reference: _ReferenceConfig) -> dict[str, Any]:
    spectrogram, encoder = reference.spec_transform, reference.encoder
    decoder, quantizer = reference.decoder, reference.quantizer
    return {
        "name": "distilcodec",
        "left_pad": LEFT_PAD,
        "mel": {
            "sample_rate": spectrogram.sampling_rate,
            "n_fft": spectrogram.n_fft,
            "hop_length": spectrogram.hop_size,
            "win_length": spectrogram.win_size,
            "n_mels": spectrogram.num_mels,
            "f_min": spectrogram.fmin,
            "f_max": spectrogram.sampling_rate / 2 if spectrogram.fmax is None else spectrogram.fmax,
        },
        "encoder": encoder.model_dump(exclude={"input_channels"}),
        "quantizer": {
            "type": quantizer.quantizer_type,
            "n_groups": quantizer.n_groups,
            "n_residuals": quantizer.n_codebooks,
            "codebook_size": quantizer.codebook_size,
            "codebook_dim": quantizer.codebook_dim or quantizer.input_dim,
            "time_factors": quantizer.downsample_factor,
            "ema_decay": quantizer.ema_decay,
        },
        "decoder": {
            "initial_channels": decoder.upsample_initial_channel,
            "upsample_rates": decoder.upsample_rates,
            "upsample_kernel_sizes": decoder.upsample_kernel_sizes,
            "resblock_kernel_sizes": decoder.resblock_kernel_sizes,
            "resblock_dilations": decoder.resblock_dilation_sizes,
            "pre_kernel_size": decoder.pre_conv_kernel_size,
            "post_kernel_size": decoder.post_conv_kernel_size,
        },
    }
