"""Lists the shards of a source, and locates and reads the samples in them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codectok.errors import CodectokError, InputError, PassingError
from codectok.shards import ShardEntry, read_index, read_manifest
from codectok.storage import Range, Storage, open_storage


@dataclass(frozen=True)
class Shard:
    """A tar file of a source.

    Attributes:
        storage: folder of the shards.
        entry: from `shards.json`.
        category: only samples of this category are used, None for all.
        n_samples: number of samples used.
    """

    storage: Storage
    entry: ShardEntry
    category: str | None
    n_samples: int

    @property
    def name(self) -> str:
        """Path or URL of the tar file."""
        return f"{self.storage.url}/{self.entry.name}"


@dataclass(frozen=True)
class SampleAddress:
    """Location of the audio file of a sample.

    Attributes:
        storage: folder of the shards.
        key: of the sample.
        byte_range: within a tar file of `storage`.
        n_samples: length of the audio.
    """

    storage: Storage
    key: str
    byte_range: Range
    n_samples: int

    @property
    def name(self) -> str:
        """Key and shard, for messages."""
        return f"{self.key} in {self.storage.url}/{self.byte_range.name}"


@dataclass(frozen=True)
class _Index:
    keys: pa.Array
    offsets: np.ndarray
    sizes: np.ndarray
    n_samples: np.ndarray


def list_shards(places: Sequence[str | Path], category: str | None, split: str, sample_rate: int) -> list[Shard]:
    """List the shards of `split` in the folders `places` that hold samples of `category` (None for any).

    Raises:
        InputError: a place is not a folder of shards, or has another sample rate.
    """
    shards = []
    for place in places:
        storage = open_storage(place)
        manifest = read_manifest(storage)
        if manifest.sample_rate != sample_rate:
            raise InputError(
                f"The shards in {place} are at {manifest.sample_rate} Hz, the codec needs {sample_rate} Hz;"
                f" write them with --sample-rate {sample_rate}."
            )
        for entry in manifest.shards:
            n_samples = entry.samples if category is None else entry.categories.get(category, 0)
            if entry.split == split and n_samples:
                shards.append(Shard(storage, entry, category, n_samples))
    return shards


class IndexCache:
    """Keeps the indices of the `limit` shards that were used last."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[tuple[str, str | None], _Index] = OrderedDict()

    def address(self, shard: Shard, number: int) -> SampleAddress:
        """Address of sample `number`, counted among the samples of `shard` that are used."""
        index = self._index(shard)
        byte_range = Range(shard.entry.name, int(index.offsets[number]), int(index.sizes[number]))
        return SampleAddress(shard.storage, index.keys[number].as_py(), byte_range, int(index.n_samples[number]))

    def _index(self, shard: Shard) -> _Index:
        name = (shard.name, shard.category)
        if name not in self._held:
            self._held[name] = _load_index(shard)
            if len(self._held) > self._limit:
                self._held.popitem(last=False)
        self._held.move_to_end(name)
        return self._held[name]


def _load_index(shard: Shard) -> _Index:
    table = read_index(shard.storage, shard.entry.name)
    if shard.category is not None:
        table = table.filter(pc.equal(table["category"], shard.category))
    if len(table) != shard.n_samples:
        raise InputError(
            f"The index of {shard.name} has {len(table)} samples, but shards.json says {shard.n_samples};"
            " write the shards again."
        )
    table = table.combine_chunks()
    columns = (table[name].to_numpy() for name in ("offset", "size", "n_samples"))
    return _Index(table["key"], *columns)


def read_audio_files(addresses: Sequence[SampleAddress]) -> list[bytes]:
    """Read the audio files at `addresses`, in order, with one request per storage.

    Raises:
        CodectokError: a tar is missing.
        PassingError: a storage cannot be reached.
    """
    found: list[bytes] = [b""] * len(addresses)
    storages = {address.storage.url: address.storage for address in addresses}
    for url, storage in storages.items():
        numbers = [number for number, address in enumerate(addresses) if address.storage.url == url]
        try:
            files = storage.read_ranges([addresses[number].byte_range for number in numbers])
        except FileNotFoundError as error:
            raise CodectokError(f"The shards in {url} cannot be read: {error}.") from None
        except Exception as error:  # every store's client raises its own errors
            raise PassingError(f"The shards in {url} cannot be read: {error}.") from None
        for number, file in zip(numbers, files, strict=True):
            found[number] = file
    return found
