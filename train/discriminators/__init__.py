"""Discriminators of HiFi-GAN and EnCodec, in the layers that the reference effectively trained."""

from .base import Judgement, MultiDiscriminator
from .period import MultiPeriodDiscriminator
from .scale import MultiScaleDiscriminator
from .stft import MultiScaleSTFTDiscriminator

__all__ = [
    "Judgement",
    "MultiDiscriminator",
    "MultiPeriodDiscriminator",
    "MultiScaleDiscriminator",
    "MultiScaleSTFTDiscriminator",
]
