"""Discriminators of HiFi-GAN and EnCodec, with the layers that DistilCodec effectively trained."""

from .base import DiscriminatorOutput, MultiDiscriminator
from .period import MultiPeriodDiscriminator
from .scale import MultiScaleDiscriminator
from .stft import MultiScaleSTFTDiscriminator

__all__ = [
    "DiscriminatorOutput",
    "MultiDiscriminator",
    "MultiPeriodDiscriminator",
    "MultiScaleDiscriminator",
    "MultiScaleSTFTDiscriminator",
]
