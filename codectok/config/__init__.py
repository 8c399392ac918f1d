"""Typed configuration of codecs."""

from .codec import (
    MAX_CODEBOOK_SIZE,
    MAX_MODULES,
    MAX_SAMPLE_RATE,
    CodecConfig,
    DecoderConfig,
    EncoderConfig,
    FiniteScalarQuantizerConfig,
    InverseSTFTDecoderConfig,
    MelConfig,
    QuantizerConfig,
    SimVectorQuantizerConfig,
    VectorQuantizerConfig,
)
from .presets import PRESETS, named_codec_config, preset
from .strict import StrictModel, load_mapping, parse

__all__ = [
    "MAX_CODEBOOK_SIZE",
    "MAX_MODULES",
    "MAX_SAMPLE_RATE",
    "PRESETS",
    "CodecConfig",
    "DecoderConfig",
    "EncoderConfig",
    "FiniteScalarQuantizerConfig",
    "InverseSTFTDecoderConfig",
    "MelConfig",
    "QuantizerConfig",
    "SimVectorQuantizerConfig",
    "StrictModel",
    "VectorQuantizerConfig",
    "load_mapping",
    "named_codec_config",
    "parse",
    "preset",
]
