"""From configuration to quantizer."""

from __future__ import annotations

from ...config import FiniteScalarQuantizerConfig, VectorQuantizerConfig
from .base import Quantizer
from .finite_scalar import FiniteScalarQuantizer
from .temporal import TemporalQuantizer
from .vector import GroupedResidualVectorQuantizer


def build_quantizer(config: VectorQuantizerConfig | FiniteScalarQuantizerConfig, dim: int) -> TemporalQuantizer:
    """The quantizer that `config` describes, for features of `dim` channels."""
    inner: Quantizer
    if isinstance(config, VectorQuantizerConfig):
        inner = GroupedResidualVectorQuantizer(config, dim)
    else:
        inner = FiniteScalarQuantizer(config, dim)
    return TemporalQuantizer(inner, dim, config.time_factors)
