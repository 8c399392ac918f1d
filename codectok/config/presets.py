"""Presets of codecs.

The DistilCodec presets follow the published configuration (student) and its README (teacher; the teacher's time factors
are not published, 1 is assumed).
"""

from __future__ import annotations

from pathlib import Path

from codectok.errors import ConfigError

from .codec import (
    CodecConfig,
    DecoderConfig,
    EncoderConfig,
    InverseSTFTDecoderConfig,
    MelConfig,
    VectorQuantizerConfig,
)
from .strict import load_mapping, parse

PRESETS: dict[str, CodecConfig] = {
    config.name: config
    for config in (
        CodecConfig(name="distilcodec-v1"),
        CodecConfig(
            name="distilcodec-teacher",
            quantizer=VectorQuantizerConfig(n_groups=4, n_residuals=8, codebook_size=1024, codebook_dim=512),
        ),
        CodecConfig(
            name="small",
            encoder=EncoderConfig(depths=(2, 2, 6, 2), dims=(96, 192, 288, 384), drop_path_rate=0.1),
            quantizer=VectorQuantizerConfig(codebook_size=8192, codebook_dim=256, ema_decay=0.95),
            decoder=DecoderConfig(initial_channels=384),
        ),
        CodecConfig(
            name="universal-small",
            mel=MelConfig(n_mels=100),
            encoder=EncoderConfig(depths=(2, 2, 4, 2), dims=(96, 128, 192, 256), drop_path_rate=0.0),
            quantizer=VectorQuantizerConfig(codebook_size=8192, codebook_dim=32, ema_decay=0.99),
            decoder=InverseSTFTDecoderConfig(type="istft", dim=224, depth=6),
        ),
        CodecConfig(
            name="nano",
            mel=MelConfig(n_mels=80),
            encoder=EncoderConfig(depths=(1, 1, 2), dims=(64, 96, 128), drop_path_rate=0.0),
            quantizer=VectorQuantizerConfig(codebook_size=1024, codebook_dim=32, ema_decay=0.95),
            decoder=DecoderConfig(
                initial_channels=128,
                upsample_rates=(8, 8, 4),
                upsample_kernel_sizes=(16, 16, 8),
                resblock_kernel_sizes=(5,),
                resblock_dilations=((1, 3),),
                pre_kernel_size=7,
                post_kernel_size=7,
            ),
        ),
    )
}


def preset(name: str) -> CodecConfig:
    """Find a preset by name.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no codec preset {name!r}; the presets are {', '.join(PRESETS)}.")
    return PRESETS[name]


def named_codec_config(name: str) -> CodecConfig:
    """Read the YAML or JSON file `name` if it exists, else find the preset `name`."""
    path = Path(name)
    return parse(CodecConfig, load_mapping(path), name) if path.is_file() else preset(name)
