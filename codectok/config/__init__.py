"""Typed configuration of codecs."""

from .codec import (
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
