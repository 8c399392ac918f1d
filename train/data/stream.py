"""The stream of training samples: maps every position to a sample."""

from __future__ import annotations

import bisect
import hashlib
import json
from dataclasses import dataclass

from codectok.errors import InputError

from .config import DataConfig, SourceConfig, StageConfig
from .mixture import Mixture, shares_of_replays, shares_of_weights
from .order import ShardOrder
from .sources import IndexCache, SampleAddress, Shard, list_shards

# Keeps the random numbers for the order of samples apart from others drawn with the same seed.
ORDER = 0
WINDOWS_IN_CACHE = 2


@dataclass(frozen=True)
class SourceStream:
    """Endless samples of one source, epoch after epoch."""

    name: str
    shards: list[Shard]
    order: ShardOrder

    @property
    def seconds(self) -> float:
        """Duration of an epoch; estimated from the number of samples if a category is only part of a shard."""
        return sum(shard.entry.seconds * shard.n_samples / shard.entry.samples for shard in self.shards)


@dataclass(frozen=True)
class Stage:
    """A mixture of sources that starts at position `first` of the stream."""

    first: int
    mixture: Mixture
    sources: list[SourceStream]

    def describe(self) -> str:
        """The sources with their share of the samples in per cent."""
        shares = zip(self.sources, self.mixture.shares, strict=True)
        return ", ".join(f"{source.name} {share / self.mixture.period:.2%}" for source, share in shares)


class SampleStream:
    """An endless stream of samples; the sample at a position depends on configuration and seed alone.

    Raises:
        InputError: a source cannot be used or is empty.
    """

    def __init__(self, config: DataConfig, sample_rate: int, seed: int) -> None:
        self._window = config.shuffle_shards
        self._seed = seed
        self.stages: list[Stage] = []
        first = 0
        for stage in config.all_stages:
            self.stages.append(self._open(first, stage, sample_rate))
            first += (stage.steps or 0) * config.batch_size
        n_sources = max(len(stage.sources) for stage in self.stages)
        self._indices = IndexCache(WINDOWS_IN_CACHE * self._window * n_sources)

    def address(self, position: int) -> SampleAddress:
        """Address of the sample at `position`."""
        stage = self.stages[bisect.bisect_right(self.stages, position, key=lambda stage: stage.first) - 1]
        number, place = stage.mixture.locate(position - stage.first)
        source = stage.sources[number]
        shard, row = source.order.locate(place)
        return self._indices.address(source.shards[shard], row)

    def hash_before(self, position: int) -> str:
        """Hash of everything that determines the samples before `position`; later stages may still change."""
        digest = hashlib.sha256()
        for stage in self.stages:
            if stage.first >= max(1, position):
                break
            shards = [[(shard.entry.sha256, shard.category) for shard in source.shards] for source in stage.sources]
            digest.update(json.dumps([stage.first, stage.mixture.shares, shards]).encode())
        return digest.hexdigest()

    def _open(self, first: int, stage: StageConfig, sample_rate: int) -> Stage:
        number = len(self.stages)
        sources = []
        for place, source in enumerate(stage.sources):
            shards = list_shards(source.shards, source.category, "train", sample_rate)
            name = _name(source)
            if not shards:
                raise InputError(f"There are no segments to train on in {name}{_hint(source, sample_rate)}.")
            seed = (ORDER, self._seed, number, place)
            order = ShardOrder([shard.n_samples for shard in shards], self._window, seed)
            sources.append(SourceStream(name, shards, order))
        weights = [source.weight for source in stage.sources if source.weight is not None]
        if weights:
            return Stage(first, Mixture(shares_of_weights(weights)), sources)
        rates = [1.0 if source.replay is None else source.replay for source in stage.sources]
        return Stage(first, Mixture(shares_of_replays([len(source.order) for source in sources], rates)), sources)


def _name(source: SourceConfig) -> str:
    places = ", ".join(map(str, source.shards))
    return places if source.category is None else f"{source.category} of {places}"


def _hint(source: SourceConfig, sample_rate: int) -> str:
    if source.category is None:
        return ""
    shards = list_shards(source.shards, None, "train", sample_rate)
    known = sorted({category for shard in shards for category in shard.entry.categories})
    return f"; the categories there are {', '.join(known)}" if known else "; no segment there has a category"
