"""Quantizers: map features [B, T, C] to codes and back."""

from .base import Quantizer, QuantizerOutput
from .build import build_quantizer

__all__ = ["Quantizer", "QuantizerOutput", "build_quantizer"]
