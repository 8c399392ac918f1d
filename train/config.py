"""Typed configuration of a training run; the defaults are the reference's recipe."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from codectok.config import CodecConfig, MelConfig, StrictModel, load_mapping, named_codec_config, parse
from codectok.errors import ConfigError

# These may change between a run and its continuation: no weight depends on them.
# (Shards may be moved: what is in them is compared on its own.)
CONTINUABLE_KEYS = (
    "output",
    "data.shards",
    "data.num_workers",
    "steps",
    "max_minutes",
    "log_interval",
    "checkpoint_interval",
    "keep_checkpoints",
    "device",
)


class DataConfig(StrictModel):
    """Training data: folders that `codectok shard` has written, and how batches are cut from them."""

    shards: tuple[Path, ...] = Field(min_length=1)
    segment_seconds: PositiveFloat = 3.0
    batch_size: PositiveInt = 16
    num_workers: NonNegativeInt = 0

    @field_validator("shards", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value


Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(StrictModel):
    """AdamW for generator and discriminators; the rate is multiplied by `decay_per_step` at every step."""

    learning_rate: PositiveFloat = 2e-4
    betas: tuple[Beta, Beta] = (0.5, 0.9)
    weight_decay: NonNegativeFloat = 0.01
    decay_per_step: Annotated[float, Field(gt=0, le=1)] = 0.999999
    max_gradient_norm: PositiveFloat | None = None


class MelTerm(StrictModel):
    """One resolution of the mel loss."""

    n_fft: PositiveInt
    hop_length: PositiveInt
    n_mels: PositiveInt = 128
    weight: PositiveFloat

    def mel_config(self, base: MelConfig) -> MelConfig:
        """The spectrogram of this resolution, at the rate and over the frequencies of `base`."""
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
    """Weights of the generator's loss."""

    mel: Annotated[tuple[MelTerm, ...], Field(min_length=1)] = (
        MelTerm(n_fft=1024, hop_length=256, weight=45.0),
        MelTerm(n_fft=2048, hop_length=512, weight=1.0),
        MelTerm(n_fft=512, hop_length=128, weight=1.0),
    )
    adversarial: NonNegativeFloat = 1.0
    feature_matching: NonNegativeFloat = 2.0
    commitment: NonNegativeFloat = 10.0


class PeriodDiscriminatorConfig(StrictModel):
    """Multi-period discriminator: one stack for each period."""

    periods: tuple[PositiveInt, ...] = (5, 8, 13, 19, 30)
    channels: tuple[PositiveInt, ...] = (32, 128, 512, 1024, 1024)
    kernel_size: PositiveInt = 5
    stride: PositiveInt = 3


class ScaleLayer(StrictModel):
    """One convolution of the multi-scale discriminator."""

    channels: PositiveInt
    kernel_size: PositiveInt
    stride: PositiveInt = 1
    groups: PositiveInt = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.channels % self.groups:
            raise ValueError(f"{self.channels} channels cannot be split into {self.groups} groups")
        return self


class ScaleDiscriminatorConfig(StrictModel):
    """Multi-scale discriminator: the first scale is the waveform, each further one is averaged down by two."""

    n_scales: PositiveInt = 3
    layers: tuple[ScaleLayer, ...] = (
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
    """Multi-scale STFT discriminator: one stack for each window length, with hops of a quarter."""

    n_ffts: tuple[Annotated[int, Field(ge=32, multiple_of=4)], ...] = (1024, 2048, 512, 256, 128)
    channels: PositiveInt = 32


class DiscriminatorsConfig(StrictModel):
    """The adversary; it joins in at `start_step`."""

    period: PeriodDiscriminatorConfig = PeriodDiscriminatorConfig()
    scale: ScaleDiscriminatorConfig = ScaleDiscriminatorConfig()
    stft: STFTDiscriminatorConfig = STFTDiscriminatorConfig()
    start_step: NonNegativeInt = 0


class TrainConfig(StrictModel):
    """A training run; its output folder gets `config.yaml`, `checkpoints/`, `tensorboard/` and at its end `codec/`."""

    output: Path
    data: DataConfig
    codec: CodecConfig = CodecConfig()
    loss: LossConfig = LossConfig()
    discriminators: DiscriminatorsConfig = DiscriminatorsConfig()
    generator_optimizer: OptimizerConfig = OptimizerConfig()
    discriminator_optimizer: OptimizerConfig = OptimizerConfig()
    seed: NonNegativeInt = 1234
    device: str = "auto"
    steps: PositiveInt = 1_000_000
    max_minutes: PositiveFloat | None = None
    log_interval: PositiveInt = 50
    checkpoint_interval: PositiveInt = 1000
    keep_checkpoints: PositiveInt = 3

    @field_validator("codec", mode="before")
    @classmethod
    def _preset_by_name(cls, value: Any) -> Any:
        return named_codec_config(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        needed = max(
            self.codec.min_samples,
            *(term.n_fft for term in self.loss.mel),
            *self.discriminators.stft.n_ffts,
            *self.discriminators.period.periods,
        )
        if self.segment_samples < needed:
            seconds = needed / self.codec.mel.sample_rate
            raise ValueError(f"data.segment_seconds must be at least {seconds:.3f}, for the longest window of a loss")
        return self

    @property
    def segment_samples(self) -> int:
        """Samples of a training segment: whole frames."""
        frame_size = self.codec.frame_size
        return max(1, round(self.data.segment_seconds * self.codec.mel.sample_rate / frame_size)) * frame_size


def load_train_config(source: str, overrides: list[str]) -> TrainConfig:
    """Read a configuration file (or a shipped one by its name) and apply `KEY=VALUE` overrides with dotted keys.

    Raises:
        ConfigError: no such file, an unknown key, a value of the wrong type.
    """
    path = Path(source)
    if not path.is_file():
        shipped = {Path(entry.name).stem: entry for entry in files("codectok.train").joinpath("configs").iterdir()}
        if source not in shipped:
            raise ConfigError(f"There is no configuration {source}; shipped ones are {', '.join(sorted(shipped))}.")
        path = Path(str(shipped[source]))
    data = load_mapping(path)
    for override in overrides:
        _apply(data, override)
    return parse(TrainConfig, data, " ".join([source, *overrides]))


def changed_keys(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys in which two configurations differ, those aside that a continuation may change."""
    changed = []
    for key in sorted(before.keys() | now.keys()):
        name = f"{prefix}{key}"
        old, new = before.get(key), now.get(key)
        if old == new or name in CONTINUABLE_KEYS:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            changed += changed_keys(old, new, f"{name}.")
        else:
            changed.append(name)
    return changed


def _apply(data: dict[str, Any], override: str) -> None:
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise ConfigError(f"{override!r} is no setting; write KEY=VALUE, as steps=1000.")
    *parents, last = dotted.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise ConfigError(f"{override!r} goes into {parent!r}, which is a single value in the configuration.")
    try:
        data[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"The value of {override!r} cannot be parsed as YAML.") from None
