"""Typed configuration of codecs."""

from .codec import (
    MAX_CODEBOOK_SIZE,
    MAX_ENTRIES,
    MAX_MODULES,
    MAX_SAMPLE_RATE,
    MAX_SAMPLES,
    CodecConfig,
    DecoderConfig,
    EncoderConfig,
    Factor,
    FiniteScalarQuantizerConfig,
    InverseSTFTDecoderConfig,
    MelConfig,
    QuantizerConfig,
    Samples,
    SimVectorQuantizerConfig,
    VectorQuantizerConfig,
    Width,
)
from .presets import PRESETS, named_codec_config, preset
from .strict import StrictModel, load_mapping, parse

__all__ = [
    "MAX_CODEBOOK_SIZE",
    "MAX_ENTRIES",
    "MAX_MODULES",
    "MAX_SAMPLES",
    "MAX_SAMPLE_RATE",
    "PRESETS",
    "CodecConfig",
    "DecoderConfig",
    "EncoderConfig",
    "Factor",
    "FiniteScalarQuantizerConfig",
    "InverseSTFTDecoderConfig",
    "MelConfig",
    "QuantizerConfig",
    "Samples",
    "SimVectorQuantizerConfig",
    "StrictModel",
    "VectorQuantizerConfig",
    "Width",
    "load_mapping",
    "named_codec_config",
    "parse",
    "preset",
]
