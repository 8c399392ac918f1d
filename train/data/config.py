"""What a run is trained on: folders of shards, alone, mixed, or one mixture after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from codectok.config import StrictModel
from codectok.storage import is_url


def _as_place(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.rstrip("/") if is_url(value) else Path(value)


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


Place = Annotated[Path | str, BeforeValidator(_as_place)]
Places = Annotated[tuple[Place, ...], Field(min_length=1), BeforeValidator(_one_or_many)]


class SourceConfig(StrictModel):
    """One part of a mixture: folders of shards, whole or only what they hold of one category.

    It has a `weight` beside those of the others, or comes `replay` times an epoch: 1 is every sample exactly once.
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
    """A mixture and for how many steps it is trained on; the last stage lasts to the end."""

    sources: tuple[SourceConfig, ...]
    steps: PositiveInt | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.sources:
            raise ValueError("name at least one source")
        if len({source.weight is None for source in self.sources}) > 1:
            raise ValueError("give every source a weight, or none of them")
        return self


class DataConfig(StrictModel):
    """Training data, given as `shards` (all samples once an epoch), `sources` (a mixture) or `stages` (several).

    Attributes:
        segment_seconds: what is cut out of every sample, at random.
        batch_size: segments of a step, on all ranks together.
        num_workers: processes that read and decode, for each rank.
        shuffle_shards: shards whose samples are mixed with each other.
        max_unreadable_in_a_row: damaged samples after which the run stops; fewer are left out.
    """

    shards: Places | None = None
    sources: tuple[SourceConfig, ...] | None = None
    stages: tuple[StageConfig, ...] | None = None
    segment_seconds: PositiveFloat = 3.0
    batch_size: PositiveInt = 16
    num_workers: NonNegativeInt = 0
    shuffle_shards: PositiveInt = 8
    max_unreadable_in_a_row: PositiveInt = 32

    @property
    def all_stages(self) -> tuple[StageConfig, ...]:
        """The stages, of which there is one where none are given."""
        if self.stages is not None:
            return self.stages
        if self.sources is not None:
            return (StageConfig(sources=self.sources),)
        assert self.shards is not None, "one of the three is given"
        return (StageConfig(sources=(SourceConfig(shards=self.shards),)),)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(given is not None for given in (self.shards, self.sources, self.stages)) != 1:
            raise ValueError("give shards, sources or stages, and set the others to null")
        if not self.all_stages:
            raise ValueError("name at least one stage")
        *earlier, last = self.all_stages
        if last.steps is not None or any(stage.steps is None for stage in earlier):
            raise ValueError("every stage but the last has a number of steps; the last one lasts to the end")
        return self


class ValidationConfig(StrictModel):
    """Clips that are never trained on, and what is done with them.

    Attributes:
        shards: their folders; of shards with a validation split that part, of others all.
        interval: steps from one validation to the next.
        clips: how many, evenly spread and the same every time.
        max_seconds: longer clips are cut.
        listen: of how many the audio and spectrograms are logged.
    """

    shards: Places
    interval: PositiveInt = 2000
    clips: PositiveInt = 64
    max_seconds: PositiveFloat = 10.0
    listen: NonNegativeInt = 4
