"""Configuration of training and validation data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from codectok.config import StrictModel
from codectok.storage import is_url

# Numbers far beyond these can be a slip only, and some of them overflow.
MAX_SEGMENT_SECONDS = 3600.0
MAX_BATCH_SIZE = 1 << 20
MAX_WORKERS = 1024


def _as_place(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.rstrip("/") if is_url(value) else Path(value)


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("give the lower number first")
    return value


Decibels = Annotated[float, Field(ge=-120, le=120)]
Range = Annotated[tuple[Decibels, Decibels], AfterValidator(_ascending)]
Speed = Annotated[float, Field(ge=0.25, le=4)]
Share = Annotated[float, Field(ge=0, le=1)]
Place = Annotated[Path | str, BeforeValidator(_as_place)]
Places = Annotated[tuple[Place, ...], Field(min_length=1), BeforeValidator(_one_or_many)]


class AugmentationConfig(StrictModel):
    """Random changes of training segments, so that a codec learns levels, mixtures and bands that its corpora lack.

    Attributes:
        gain: lowest and highest change of the level in dB.
        background_share: share of the segments that another segment is mixed into.
        background_level: lowest and highest level of the other segment, in dB relative to the first.
        low_pass_share: share of the segments that lose all frequencies above a limit.
        low_pass_hertz: lowest and highest limit in Hz.
        speed: lowest and highest factor of the playback speed, drawn log-uniformly; 1 by default. Pitch changes with
            it, so that a few speakers sound like many. Backgrounds keep their speed.
    """

    gain: Range = (-12.0, 3.0)
    background_share: Share = 0.3
    background_level: Range = (-25.0, 0.0)
    low_pass_share: Share = 0.1
    low_pass_hertz: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ascending)] = (3000.0, 10_000.0)
    speed: Annotated[tuple[Speed, Speed], AfterValidator(_ascending)] = (1.0, 1.0)


class SourceConfig(StrictModel):
    """One source of a mixture.

    Attributes:
        shards: folders of shards.
        category: only samples of this category are used; all samples if None.
        weight: share of the samples, relative to the weights of the other sources.
        replay: times that each sample comes per epoch, instead of a weight; 1 if neither is set.
    """

    shards: Places
    category: str | None = None
    weight: PositiveFloat | None = None
    replay: PositiveFloat | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.weight is not None and self.replay is not None:
            raise ValueError("give a weight or a replay rate, not both")
        return self


class StageConfig(StrictModel):
    """A mixture of sources, and the number of steps to train on it.

    Attributes:
        sources: of the mixture.
        steps: None for the last stage, which lasts until the end of the run.
    """

    sources: tuple[SourceConfig, ...]
    steps: PositiveInt | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.sources:
            raise ValueError("name at least one source")
        if len({source.weight is None for source in self.sources}) > 1:
            raise ValueError("give a weight to every source or to none")
        return self


class DataConfig(StrictModel):
    """Training data, given as exactly one of `shards`, `sources` and `stages`.

    Attributes:
        shards: folders of shards; every sample comes once per epoch.
        sources: a mixture.
        stages: mixtures that follow each other.
        segment_seconds: length of the random crop taken from each sample.
        augmentation: random changes of the segments; none if None.
        batch_size: segments per step, on all ranks together.
        num_workers: processes per rank that read and decode.
        shuffle_shards: number of neighbouring shards whose samples are mixed.
        max_unreadable_in_a_row: consecutive damaged samples on one rank that stop the run; fewer are skipped.
    """

    shards: Places | None = None
    sources: tuple[SourceConfig, ...] | None = None
    stages: tuple[StageConfig, ...] | None = None
    segment_seconds: Annotated[float, Field(gt=0, le=MAX_SEGMENT_SECONDS)] = 3.0
    augmentation: AugmentationConfig | None = None
    batch_size: Annotated[int, Field(gt=0, le=MAX_BATCH_SIZE)] = 16
    num_workers: Annotated[int, Field(ge=0, le=MAX_WORKERS)] = 0
    shuffle_shards: PositiveInt = 8
    max_unreadable_in_a_row: PositiveInt = 32

    @property
    def all_stages(self) -> tuple[StageConfig, ...]:
        """The stages; a single one if `shards` or `sources` is given."""
        if self.stages is not None:
            return self.stages
        if self.shards is not None:
            return (StageConfig(sources=(SourceConfig(shards=self.shards),)),)
        return (StageConfig(sources=self.sources or ()),)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(given is not None for given in (self.shards, self.sources, self.stages)) != 1:
            raise ValueError("give one of shards, sources and stages, and set the others to null")
        if not self.all_stages:
            raise ValueError("name at least one stage")
        *earlier, last = self.all_stages
        if last.steps is not None or any(stage.steps is None for stage in earlier):
            raise ValueError("set steps for every stage but the last, which lasts until the end")
        return self


class ValidationConfig(StrictModel):
    """Validation on clips that are never trained on.

    Attributes:
        shards: folders of shards; the validation split is used if there is one, otherwise all samples.
        interval: steps between validations.
        clips: number of clips, evenly spread and always the same.
        max_seconds: longer clips are cut.
        listen: number of clips whose audio and spectrograms are logged.
    """

    shards: Places
    interval: PositiveInt = 2000
    clips: PositiveInt = 64
    max_seconds: PositiveFloat = 10.0
    listen: NonNegativeInt = 4
