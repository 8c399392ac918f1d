"""Configuration of a training run, and how it is loaded; the defaults are DistilCodec's recipe."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from codectok.config import CodecConfig, DecoderConfig, StrictModel, load_mapping, named_codec_config, parse
from codectok.errors import ConfigError
from codectok.parsing import parse_yaml
from codectok.storage import is_url
from codectok.train.data.config import DataConfig, ValidationConfig

from .recipe import Beta, DiscriminatorsConfig, LossConfig, OptimizerConfig, TrainingPrecision

# Keys that may change when a run is resumed. No weight depends on them, except on `accumulation` as documented below.
# Shards may be moved and stages added, because the stream so far is compared separately.
RESUMABLE_KEYS = (
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
    """A training run.

    Attributes:
        output: folder for `config.yaml`, `checkpoints/`, `tensorboard/` and, at the end, `codec/`.
        data: training data.
        validation: validation clips; no validation if None.
        codec: configuration of the codec, or the name of a preset.
        init_from: folder of a codec or a finished run, or `universal-small`, whose encoder and decoder are copied, and
            whose quantizer as well if it is configured alike (warm start).
        train_only: "decoder" to keep the encoder and the quantizer of `init_from`, and so its codes; None to train all.
        resume_from: checkpoint of another run, to be resumed with the configuration of this one.
        loss: weights of the generator's loss terms.
        discriminators: the adversary.
        generator_optimizer: optimizer of the codec.
        discriminator_optimizer: optimizer of the discriminators.
        precision: of encoder, decoder and discriminators; spectrograms, quantizer and losses are always in float32.
        accumulation: number of microbatches per step and rank. It affects results only by rounding, by dropped paths,
            and by `loss.diversity`, which is computed per microbatch.
        weight_average: decay of the moving average of weights that becomes the codec; no average if None.
        explosion: the run stops if the mel error is this many times its lowest value.
        loss_explosion: the run stops if the generator's loss is this many times the loss of the first step.
        seed: of all random numbers.
        device: "auto", "cpu" or "cuda".
        steps: number of optimizer steps.
        max_minutes: the run stops after this time, and can be resumed; no limit if None.
        log_interval: steps over which logged metrics are averaged.
        checkpoint_interval: steps between checkpoints.
        keep_checkpoints: number of checkpoints that are kept, besides the best one.
        wandb_project: project at Weights & Biases to log to, besides TensorBoard.
    """

    output: Path
    data: DataConfig
    validation: ValidationConfig | None = None
    codec: CodecConfig = CodecConfig()
    init_from: Path | None = None
    train_only: Literal["decoder"] | None = None
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

    @field_validator("output", "init_from", "resume_from", mode="before")
    @classmethod
    def _on_a_disk(cls, value: Any) -> Any:
        if isinstance(value, str) and is_url(value):
            raise ValueError(f"{value} is a URL; give a folder on a disk that all ranks see")
        return value

    @field_validator("codec", mode="before")
    @classmethod
    def _preset_by_name(cls, value: Any) -> Any:
        return named_codec_config(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.data.batch_size % self.accumulation:
            raise ValueError(f"data.batch_size {self.data.batch_size} is not a multiple of accumulation")
        if self.discriminator_optimizer.method == "muon":
            raise ValueError("discriminator_optimizer.method cannot be muon: discriminators have no linear layers")
        if self.loss.distillation and self.init_from is None:
            raise ValueError("loss.distillation needs init_from, the codec to learn from")
        if self.train_only and self.init_from is None:
            raise ValueError("train_only needs init_from, the codec whose encoder and quantizer are kept")
        if self.train_only and (self.loss.distillation or self.loss.diversity):
            raise ValueError("loss.distillation and loss.diversity change nothing with train_only; set them to 0")
        method = self.generator_optimizer.method
        if self.train_only and method == "muon" and isinstance(self.codec.decoder, DecoderConfig):
            raise ValueError(
                "generator_optimizer.method cannot be muon with train_only: this decoder has no linear layers"
            )
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
        """Length of a training segment in samples, a multiple of the frame size."""
        frame_size = self.codec.frame_size
        return max(1, round(self.data.segment_seconds * self.codec.mel.sample_rate / frame_size)) * frame_size


def load_train_config(source: str, overrides: list[str]) -> TrainConfig:
    """Load the configuration of a single run, see `load_stages`.

    Raises:
        ConfigError: `source` cannot be loaded, or describes several runs.
    """
    stages = load_stages(source, overrides)
    if len(stages) > 1:
        raise ConfigError(f"{source} describes {len(stages)} runs (stages); give the configuration of a single run.")
    return stages[0]


def load_stages(source: str, overrides: list[str]) -> list[TrainConfig]:
    """Load a configuration file, or a shipped configuration by name, and apply overrides.

    A file may name another one as its `base` and override parts of it. A file with `stages` describes several runs by
    name. Keys beside `stages` apply to all of them. Each run writes to its own folder below `output`, and starts from
    the codec of the previous run unless it sets `init_from`.

    Args:
        source: path or name.
        overrides: "KEY=VALUE" with dotted keys and YAML values.

    Raises:
        ConfigError: the file is missing, a key is unknown, or a value has the wrong type.
    """
    origin = " ".join([source, *overrides])
    data = _load(source)
    for override in overrides:
        _apply(data, override)
    if "stages" not in data:
        return [parse(TrainConfig, data, origin)]
    stages = data.pop("stages")
    if not isinstance(stages, dict) or not stages:
        raise ConfigError(f"{origin}: stages must map names to configurations.")
    output = data.pop("output", ".")
    if not isinstance(output, str):
        raise ConfigError(f"{origin}: output is {output!r}; give the name of a folder, in quotes if it is a number.")
    configs: list[TrainConfig] = []
    for name, stage in stages.items():
        if not isinstance(name, str):
            raise ConfigError(f"{origin}: the name of the stage {name!r} is no text; put it in quotes.")
        where = f"{origin}, stage {name}"
        if stage is not None and not isinstance(stage, dict):
            raise ConfigError(f"{where} is {stage!r}; give a mapping, such as {{base: teacher}}.")
        derived = {"output": f"{output}/{name}", **({"init_from": str(configs[-1].output)} if configs else {})}
        merged = merge(merge(_with_base(stage or {}, where), data), derived)
        # Keys of the stage itself take precedence.
        configs.append(parse(TrainConfig, merge(merged, stage or {}), where))
    return configs


def merge(before: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merge `changes` into `before` recursively; a mapping with another `type` is replaced as a whole."""
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


def _load(source: str, derived: tuple[Path, ...] = ()) -> dict[str, Any]:
    path = Path(source)
    if derived and not path.is_absolute() and (derived[-1].parent / path).is_file():
        path = derived[-1].parent / path
    if not path.is_file():
        shipped = {Path(entry.name).stem: entry for entry in files("codectok.train").joinpath("configs").iterdir()}
        if source not in shipped:
            raise ConfigError(f"There is no configuration {source}; the shipped ones are {', '.join(sorted(shipped))}.")
        path = Path(str(shipped[source]))
    if path.resolve() in [other.resolve() for other in derived]:
        raise ConfigError(f"{path} is its own base; remove the base from one of the files.")
    return _with_base(load_mapping(path), source, (*derived, path))


def _with_base(data: dict[str, Any], origin: str, derived: tuple[Path, ...] = ()) -> dict[str, Any]:
    base = data.get("base")
    if base is None:
        return merge({}, data)
    if not isinstance(base, str):
        raise ConfigError(f"{origin}: base must be the name of a configuration or a file, not {base!r}.")
    return merge(_load(base, derived), data)


def _as_mapping(key: str, value: Any) -> Any:
    """Replace the name of a codec preset by its configuration, so that parts of it can be overridden."""
    if key == "codec" and isinstance(value, str):
        return named_codec_config(value).model_dump(mode="json")
    return value


def changed_keys(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys in which two configurations differ, except keys that may change when a run is resumed."""
    changed = []
    for key in sorted(before.keys() | now.keys()):
        name = f"{prefix}{key}"
        old, new = before.get(key), now.get(key)
        if old == new or name in RESUMABLE_KEYS:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            changed += changed_keys(old, new, f"{name}.")
        else:
            changed.append(name)
    return changed


def _apply(data: dict[str, Any], override: str) -> None:
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise ConfigError(f"{override!r} is not a setting; write KEY=VALUE, such as steps=1000.")
    *parents, last = dotted.split(".")
    for parent in parents:
        data[parent] = _as_mapping(parent, data.get(parent, {}))
        data = data[parent]
        if not isinstance(data, dict):
            raise ConfigError(f"{override!r} sets a key of {parent!r}, which is a single value in the configuration.")
    data[last] = parse_yaml(text, f"The value of {override!r}")
