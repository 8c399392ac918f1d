"""Typed configuration of a training run; the defaults are the reference's recipe."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from codectok.config import CodecConfig, StrictModel, load_mapping, named_codec_config, parse
from codectok.errors import ConfigError
from codectok.train.data.config import DataConfig, ValidationConfig

from .recipe import Beta, DiscriminatorsConfig, LossConfig, OptimizerConfig, TrainingPrecision

# These may change between a run and its continuation: no weight depends on them (on `accumulation` as its line below
# says: what is a matter of chance then falls out otherwise).
# (Shards may be moved and stages added: the stream so far is compared on its own.)
CONTINUABLE_KEYS = (
    "output",
    "data.shards",
    "data.sources",
    "data.stages",
    "data.num_workers",
    "data.max_unreadable_in_a_row",
    "steps",
    "max_minutes",
    "log_interval",
    "checkpoint_interval",
    "keep_checkpoints",
    "device",
    "accumulation",
    "explosion",
    "loss_explosion",
    "validation",
    "wandb_project",
)


class TrainConfig(StrictModel):
    """A training run; its output folder gets `config.yaml`, `checkpoints/`, `tensorboard/` and at its end `codec/`.

    Attributes:
        data, codec, loss, discriminators, generator_optimizer, discriminator_optimizer: the recipe.
        init_from: a codec, or a run that has ended, whose encoder and decoder this one starts with.
        resume_from: a checkpoint of another run, from which this one goes on with the recipe that stands here.
        precision: of encoder, decoder and discriminators; mel spectrograms, the quantizer and losses are in float32.
        accumulation: in how many parts a batch is worked on, one after the other; no result depends on it but by
            rounding, by dropped paths, and by `loss.diversity`, which is of the codes of a part.
        weight_average: what a step leaves of the moving average of weights, which then becomes the codec.
        explosion, loss_explosion: at how many times its lowest value the mel error, and at how many times that of the
            first step the generator's loss ends the run.
        wandb_project: where figures are sent besides TensorBoard; nowhere by default.
    """

    output: Path
    data: DataConfig
    validation: ValidationConfig | None = None
    codec: CodecConfig = CodecConfig()
    init_from: Path | None = None
    resume_from: Path | None = None
    loss: LossConfig = LossConfig()
    discriminators: DiscriminatorsConfig = DiscriminatorsConfig()
    generator_optimizer: OptimizerConfig = OptimizerConfig()
    discriminator_optimizer: OptimizerConfig = OptimizerConfig()
    precision: TrainingPrecision = "float32"
    accumulation: PositiveInt = 1
    weight_average: Beta | None = None
    explosion: Annotated[float, Field(gt=1)] = 3.0
    loss_explosion: Annotated[float, Field(gt=1)] = 10.0
    seed: NonNegativeInt = 1234
    device: str = "auto"
    steps: PositiveInt = 1_000_000
    max_minutes: PositiveFloat | None = None
    log_interval: PositiveInt = 50
    checkpoint_interval: PositiveInt = 1000
    keep_checkpoints: PositiveInt = 3
    wandb_project: str | None = None

    @field_validator("codec", mode="before")
    @classmethod
    def _preset_by_name(cls, value: Any) -> Any:
        return named_codec_config(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.data.batch_size % self.accumulation:
            raise ValueError(f"data.batch_size {self.data.batch_size} is not a multiple of accumulation")
        if self.loss.distillation and self.init_from is None:
            raise ValueError("loss.distillation needs init_from, the codec to learn from")
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
    """The one run that `source` describes, see `load_stages`; `ConfigError` if it describes several."""
    stages = load_stages(source, overrides)
    if len(stages) > 1:
        raise ConfigError(f"{source} describes {len(stages)} runs, one after the other; give a configuration of one.")
    return stages[0]


def load_stages(source: str, overrides: list[str]) -> list[TrainConfig]:
    """Read a configuration file (or a shipped one by its name) and apply `KEY=VALUE` overrides with dotted keys.

    A file may name another as its `base`, of which it then changes what it says. With `stages` it describes several
    runs, each by its name: what stands beside them is common to all, each writes into its own folder below `output`,
    and starts with what the one before has ended with, unless it says otherwise (`init_from`).

    Raises:
        ConfigError: no such file, an unknown key, a value of the wrong type.
    """
    origin = " ".join([source, *overrides])
    data = _load(source)
    for override in overrides:
        _apply(data, override)
    if "stages" not in data:
        return [parse(TrainConfig, data, origin)]
    stages = data.pop("stages")
    if not isinstance(stages, dict) or not stages:
        raise ConfigError(f"{origin}: stages must hold a configuration for each name.")
    output = Path(data.pop("output", "."))
    configs: list[TrainConfig] = []
    for name, stage in stages.items():
        where = f"{origin}, stage {name}"
        if stage is not None and not isinstance(stage, dict):
            raise ConfigError(f"{where} is {stage!r}; give what it changes, as in base: teacher.")
        derived = {"output": str(output / name), **({"init_from": str(configs[-1].output)} if configs else {})}
        described = merge(merge(_with_base(stage or {}, where), data), derived)
        # What the stage itself says weighs most.
        configs.append(parse(TrainConfig, merge(described, stage or {}), where))
    return configs


def merge(before: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`before` with `changes`, key by key; what changes its `type` is replaced as a whole."""
    merged = dict(before)
    for key, value in changes.items():
        if key == "base":
            continue
        old = _as_mapping(key, merged.get(key))
        if isinstance(old, dict) and isinstance(value, dict) and old.get("type") == value.get("type", old.get("type")):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def _load(source: str, based_on_it: tuple[Path, ...] = ()) -> dict[str, Any]:
    path = Path(source)
    if based_on_it and not path.is_absolute() and (based_on_it[-1].parent / path).is_file():
        path = based_on_it[-1].parent / path
    if not path.is_file():
        shipped = {Path(entry.name).stem: entry for entry in files("codectok.train").joinpath("configs").iterdir()}
        if source not in shipped:
            raise ConfigError(f"There is no configuration {source}; shipped ones are {', '.join(sorted(shipped))}.")
        path = Path(str(shipped[source]))
    if path in based_on_it:
        raise ConfigError(f"{path} is its own base; remove one of the lines that say so.")
    return _with_base(load_mapping(path), source, (*based_on_it, path))


def _with_base(data: dict[str, Any], origin: str, based_on_it: tuple[Path, ...] = ()) -> dict[str, Any]:
    base = data.get("base")
    if base is None:
        return merge({}, data)
    if not isinstance(base, str):
        raise ConfigError(f"{origin}: base must be the name of a configuration or a file, not {base!r}.")
    return merge(_load(base, based_on_it), data)


def _as_mapping(key: str, value: Any) -> Any:
    """A codec that was given by its preset's name, so that parts of it can be changed."""
    if key == "codec" and isinstance(value, str):
        return named_codec_config(value).model_dump(mode="json")
    return value


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
        data[parent] = _as_mapping(parent, data.get(parent, {}))
        data = data[parent]
        if not isinstance(data, dict):
            raise ConfigError(f"{override!r} goes into {parent!r}, which is a single value in the configuration.")
    try:
        data[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"The value of {override!r} cannot be parsed as YAML.") from None
