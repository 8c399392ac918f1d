"""Configuration of optimizers, losses and discriminators; the defaults are DistilCodec's recipe."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from codectok.config import MAX_ENTRIES, MAX_SAMPLES, Factor, MelConfig, Samples, StrictModel, Width

Beta = Annotated[float, Field(ge=0, lt=1)]
TrainingPrecision = Literal["float32", "bfloat16"]


class OptimizerConfig(StrictModel):
    """AdamW, or Muon and AdamW, with a learning rate schedule.

    Attributes:
        method: `adamw`, or `muon` for the weights of `nn.Linear` layers and AdamW for all else; for the codec only.
            Muon makes the singular values of an update about equal (https://kellerjordan.github.io/posts/muon/). Its
            updates are scaled to the size of AdamW's (https://arxiv.org/abs/2502.16982), so that learning rates need
            not be changed. Its momentum is 0.95.
        learning_rate: peak learning rate.
        betas: of AdamW.
        weight_decay: of both.
        warmup_steps: steps of linear increase from zero.
        constant_steps: steps at the peak after the warm-up, before the rate decays.
        decay_per_step: factor applied at every step after the warm-up and the constant steps.
        cosine_steps: number of steps of cosine decay, in place of `decay_per_step`.
        final_share: learning rate at the end of the cosine decay, relative to the peak.
        max_gradient_norm: norm that gradients are clipped to; no clipping if None.
    """

    method: Literal["adamw", "muon"] = "adamw"
    learning_rate: PositiveFloat = 2e-4
    betas: tuple[Beta, Beta] = (0.5, 0.9)
    weight_decay: NonNegativeFloat = 0.01
    warmup_steps: NonNegativeInt = 0
    constant_steps: NonNegativeInt = 0
    decay_per_step: Annotated[float, Field(gt=0, le=1)] = 0.999999
    cosine_steps: PositiveInt | None = None
    final_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_gradient_norm: PositiveFloat | None = None


class MelTerm(StrictModel):
    """One resolution of the mel loss.

    Attributes:
        n_fft: window length in samples.
        hop_length: in samples.
        n_mels: number of mel bands.
        weight: of this term.
    """

    n_fft: Samples
    hop_length: Samples
    n_mels: Factor = 128
    weight: PositiveFloat

    def mel_config(self, base: MelConfig) -> MelConfig:
        """The spectrogram of this resolution, with the sample rate and frequency range of `base`."""
        return base.model_copy(
            update={
                "n_fft": self.n_fft,
                "win_length": self.n_fft,
                "hop_length": self.hop_length,
                "n_mels": self.n_mels,
            }
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hop_length > self.n_fft or (self.n_fft - self.hop_length) % 2:
            raise ValueError("hop_length must be at most n_fft, and n_fft - hop_length even")
        return self


class LossConfig(StrictModel):
    """Weights of the generator's loss.

    Attributes:
        mel: mean absolute difference of log-mels, at several resolutions.
        adversarial: least-squares adversarial loss.
        feature_matching: mean absolute difference of the discriminators' feature maps.
        commitment: mean squared difference between features and their codes.
        waveform: mean absolute difference of samples.
        envelope: one minus the correlation of band envelopes, see `codectok.train.trainer.envelope_loss`.
        diversity: deviation from equal use of the codes, see `codectok.model.quantization.diversity`.
        distillation: mean squared difference from the quantized features of the codec in `init_from`.
    """

    mel: Annotated[tuple[MelTerm, ...], Field(min_length=1)] = (
        MelTerm(n_fft=1024, hop_length=256, weight=45.0),
        MelTerm(n_fft=2048, hop_length=512, weight=1.0),
        MelTerm(n_fft=512, hop_length=128, weight=1.0),
    )
    adversarial: NonNegativeFloat = 1.0
    feature_matching: NonNegativeFloat = 2.0
    commitment: NonNegativeFloat = 10.0
    waveform: NonNegativeFloat = 0.0
    envelope: NonNegativeFloat = 0.0
    diversity: NonNegativeFloat = 0.0
    distillation: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({term.n_fft for term in self.mel}) < len(self.mel):
            raise ValueError("each term of mel needs a different n_fft, by which it is logged")
        return self


class PeriodDiscriminatorConfig(StrictModel):
    """Multi-period discriminator: one stack of convolutions per period.

    Attributes:
        periods: in samples.
        channels: of the layers.
        kernel_size: of all layers.
        stride: of all layers but the last.
    """

    periods: Annotated[tuple[Samples, ...], Field(max_length=MAX_ENTRIES)] = (5, 8, 13, 19, 30)
    channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=MAX_ENTRIES)] = (32, 128, 512, 1024, 1024)
    kernel_size: Factor = 5
    stride: Factor = 3


class ScaleLayer(StrictModel):
    """One convolution of the multi-scale discriminator.

    Attributes:
        channels: number of output channels.
        kernel_size: in samples.
        stride: in samples.
        groups: groups that the channels are split into.
    """

    channels: Width
    kernel_size: Factor
    stride: Factor = 1
    groups: Width = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.channels % self.groups:
            raise ValueError(f"{self.channels} channels cannot be split into {self.groups} groups")
        return self


class ScaleDiscriminatorConfig(StrictModel):
    """Multi-scale discriminator: the first scale is the waveform, each further scale is averaged by two.

    Attributes:
        n_scales: number of scales.
        layers: convolutions of each scale.
    """

    n_scales: Annotated[int, Field(gt=0, le=MAX_ENTRIES)] = 3
    layers: Annotated[tuple[ScaleLayer, ...], Field(min_length=1, max_length=MAX_ENTRIES)] = (
        ScaleLayer(channels=128, kernel_size=15),
        ScaleLayer(channels=128, kernel_size=41, stride=2, groups=4),
        ScaleLayer(channels=256, kernel_size=41, stride=2, groups=16),
        ScaleLayer(channels=512, kernel_size=41, stride=4, groups=16),
        ScaleLayer(channels=1024, kernel_size=41, stride=4, groups=16),
        ScaleLayer(channels=1024, kernel_size=41, groups=16),
        ScaleLayer(channels=1024, kernel_size=5),
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        in_channels = (1, *(layer.channels for layer in self.layers))
        for channels, layer in zip(in_channels, self.layers, strict=False):
            if channels % layer.groups:
                raise ValueError(f"{channels} input channels cannot be split into {layer.groups} groups")
        return self


class STFTDiscriminatorConfig(StrictModel):
    """Multi-scale STFT discriminator: one stack of convolutions per window length; the hop is a quarter window.

    Attributes:
        n_ffts: window lengths in samples.
        channels: of all layers.
    """

    n_ffts: Annotated[
        tuple[Annotated[int, Field(ge=32, le=MAX_SAMPLES, multiple_of=4)], ...], Field(max_length=MAX_ENTRIES)
    ] = (1024, 2048, 512, 256, 128)
    channels: Width = 32


class DiscriminatorsConfig(StrictModel):
    """The adversary.

    Attributes:
        period: multi-period discriminator.
        scale: multi-scale discriminator.
        stft: multi-scale STFT discriminator.
        start_step: first step with the adversary.
    """

    period: PeriodDiscriminatorConfig = PeriodDiscriminatorConfig()
    scale: ScaleDiscriminatorConfig = ScaleDiscriminatorConfig()
    stft: STFTDiscriminatorConfig = STFTDiscriminatorConfig()
    start_step: NonNegativeInt = 0
