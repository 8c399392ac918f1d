"""Builds a quantizer from its configuration."""

from __future__ import annotations

from codectok.config import QuantizerConfig, SimVectorQuantizerConfig, VectorQuantizerConfig

from .base import Quantizer
from .fsq import FiniteScalarQuantizer
from .grvq import GroupedResidualVectorQuantizer
from .simvq import SimVectorQuantizer
from .temporal import TemporalQuantizer


def build_quantizer(config: QuantizerConfig, dim: int) -> TemporalQuantizer:
    """Build the quantizer of `config` for features of `dim` channels."""
    inner: Quantizer
    if isinstance(config, VectorQuantizerConfig):
        inner = GroupedResidualVectorQuantizer(config, dim)
    elif isinstance(config, SimVectorQuantizerConfig):
        inner = SimVectorQuantizer(config, dim)
    else:
        inner = FiniteScalarQuantizer(config, dim)
    return TemporalQuantizer(inner, dim, config)
