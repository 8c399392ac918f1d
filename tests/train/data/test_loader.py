"""Batches: samples once per epoch on any ranks and workers, exact resume, damaged samples, stages, mixtures, URLs."""

from __future__ import annotations

import itertools
import logging
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codectok.errors import CodectokError, InputError
from codectok.shards import IndexedSample, read_index
from codectok.storage import Storage, open_storage
from codectok.train import Batch, DataConfig, SegmentLoader, SegmentReader
from codectok.train.data import segments
from codectok.train.data.config import ValidationConfig
from codectok.train.data.validation import validation_clips
from tests.helpers.storage import upload
from tests.train.conftest import SAMPLE_RATE, STEP, damage, write_shards

SIZES = [3, 5, 2, 6, 4, 3, 2]
TOTAL = sum(SIZES)
BATCH = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards") / "all", SIZES)


def data_config(**settings: object) -> DataConfig:
    return DataConfig.model_validate({"batch_size": BATCH, "shuffle_shards": 2, **settings})


def segment_reader(config: DataConfig, seed: int = 5, segment_samples: int = 900) -> SegmentReader:
    return SegmentReader(config, SAMPLE_RATE, segment_samples, seed)


def batches(config: DataConfig, n: int, position: int = 0, rank: int = 0, world_size: int = 1) -> list[Batch]:
    loader = SegmentLoader(segment_reader(config), config, position, rank, world_size)
    return list(itertools.islice(loader, n))


def segment_at(reader: SegmentReader, position: int) -> torch.Tensor:
    return torch.from_numpy(reader.read([position])[0].waveform)


def keys_of(found: list[Batch]) -> list[str]:
    return [key for batch in found for key in batch.keys]


def global_keys(config: DataConfig, n: int, position: int, world_size: int) -> list[str]:
    """Keys of `n` steps on all ranks, in the order of the stream."""
    ranks = [batches(config, n, position, rank, world_size) for rank in range(world_size)]
    return [key for shares in zip(*ranks, strict=True) for share in shares for key in share.keys]


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_resumed_stream_is_identical(folder: Path, num_workers: int) -> None:
    config = data_config(shards=folder, num_workers=num_workers)
    whole = batches(config, 12)
    first = batches(config, 5)
    rest = batches(config, 7, position=first[-1].position)
    for one, other in zip(whole, [*first, *rest], strict=True):
        assert torch.equal(one.waveforms, other.waveforms)
        assert (one.keys, one.position) == (other.keys, other.position)
    assert keys_of(whole) == keys_of(batches(data_config(shards=folder), 12))


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 2), (2, 2), (3, 1), (4, 0), (6, 0)])
def test_ranks_see_every_sample_once_per_epoch(folder: Path, world_size: int, num_workers: int) -> None:
    config = data_config(shards=folder, num_workers=num_workers)
    stream = global_keys(config, 3 * TOTAL // BATCH + 1, 0, world_size)
    assert stream == keys_of(batches(data_config(shards=folder), 3 * TOTAL // BATCH + 1))
    for epoch in range(3):
        assert sorted(stream[epoch * TOTAL : (epoch + 1) * TOTAL]) == sorted(f"all-{n}" for n in range(TOTAL))


# Steps, ranks and workers of each start of a run.
STARTS = {
    "two-then-three": [(4, 2, 2), (6, 3, 2)],
    "three-then-two": [(5, 3, 1), (5, 2, 0)],
    "often": [(1, 1, 2), (2, 4, 1), (1, 6, 0), (3, 2, 1), (1, 5, 0), (2, 1, 0)],
}


@pytest.mark.parametrize("mixed", [False, True], ids=["one-source", "mixed"])
@pytest.mark.parametrize("starts", STARTS.values(), ids=STARTS.keys())
def test_resume_on_other_ranks_and_workers_is_exact(
    starts: list[tuple[int, int, int]], mixed: bool, folder: Path
) -> None:
    sources = [{"shards": folder}, {"shards": folder, "replay": 0.3}]
    data: dict[str, object] = {"sources": sources} if mixed else {"shards": folder}
    stream: list[str] = []
    for n_steps, world_size, num_workers in starts:
        config = data_config(**data, num_workers=num_workers)
        stream += global_keys(config, n_steps, len(stream), world_size)
    assert stream == keys_of(batches(data_config(**data), 10))


def test_unequal_shares_have_equal_shapes(folder: Path) -> None:
    parts = [batches(data_config(shards=folder), 1, 0, rank, 4)[0] for rank in range(4)]
    assert {part.waveforms.shape for part in parts} == {(2, 900)}
    assert [part.mask.tolist() for part in parts] == [[True, False], [True, True], [True, False], [True, True]]
    assert {part.position for part in parts} == {BATCH}
    with pytest.raises(InputError, match=r"6 segments .* 7 ranks; set data\.batch_size"):
        batches(data_config(shards=folder), 1, 0, 0, 7)


def test_segment_belongs_to_its_key(folder: Path) -> None:
    config = data_config(shards=folder)
    for batch in batches(config, 8):
        values = [round(float(waveform[0]) / STEP) for waveform in batch.waveforms]
        assert [f"all-{value}" for value in values] == list(batch.keys)
        assert (batch.waveforms == batch.waveforms[:, :1]).all()
    long = segment_at(segment_reader(config, segment_samples=2000), 0)
    assert (long[1500:] == 0).all()


def test_crop_depends_on_seed_and_position(shards: Path) -> None:
    config = data_config(shards=shards)
    assert torch.equal(segment_at(segment_reader(config), 3), segment_at(segment_reader(config), 3))
    assert not torch.equal(segment_at(segment_reader(config, seed=1), 3), segment_at(segment_reader(config, seed=2), 3))
    reader = segment_reader(config)
    epoch_size = reader.stream.stages[0].mixture.period
    epochs: dict[str, list[bytes]] = {}
    for position in range(4 * epoch_size):
        key = reader.stream.address(position).key
        epochs.setdefault(key, []).append(segment_at(reader, position).numpy().tobytes())
    assert len(epochs) == epoch_size
    assert all(len(set(parts)) == 4 for parts in epochs.values())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_damaged_samples_are_masked(num_workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = data_config(shards=write_shards(tmp_path / "all", SIZES), num_workers=num_workers)
    whole = batches(config, 5)
    bad = {"all-3", "all-11", "all-12"}
    damage(tmp_path / "all", bad)
    loader = SegmentLoader(segment_reader(config), config)
    with caplog.at_level(logging.WARNING):
        found = list(itertools.islice(loader, 5))
    assert keys_of(found) == keys_of(whole)
    for one, other in zip(whole, found, strict=True):
        assert other.mask.tolist() == [key not in bad for key in other.keys]
        assert torch.equal(other.waveforms, one.waveforms * other.mask[:, None])
        assert torch.equal(other.filled()[other.mask], one.waveforms[other.mask])
        rows = {tuple(row.tolist()) for row in one.waveforms[other.mask]}
        assert {tuple(row.tolist()) for row in other.filled()} == rows
    assert loader.damaged.total == sum(key in bad for key in keys_of(found)) == len(caplog.messages)
    assert all(any(f"The sample {key} in" in message for message in caplog.messages) for key in bad)


def test_fallback_segment_replaces_a_damaged_share(tmp_path: Path) -> None:
    """Both ranks have three samples; those of the first rank are damaged, and the first one of the second rank."""
    config = data_config(shards=write_shards(tmp_path / "all", SIZES))
    whole = batches(config, 3)
    damage(tmp_path / "all", set(whole[1].keys[:4]))
    part = batches(config, 3, rank=0, world_size=2)[1]
    assert (part.mask.tolist(), part.keys) == ([False] * 3, whole[1].keys[:3])
    assert not part.waveforms.any()
    assert torch.equal(part.filled(), whole[1].waveforms[4].expand(3, -1))
    (again,) = batches(config, 1, position=BATCH, rank=0, world_size=2)
    assert torch.equal(again.filled(), part.filled())
    strict = data_config(shards=tmp_path / "all", max_unreadable_in_a_row=1)
    with pytest.raises(CodectokError, match="1 samples in a row"):
        batches(strict, 2, rank=0, world_size=2)


def test_flipped_bit_in_audio_is_detected(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = segment_reader(data_config(shards=shards), segment_samples=10 * SAMPLE_RATE)
    audio = open_storage(shards).read_ranges([data.stream.address(0).byte_range])[0]
    for place in range(len(audio) // 4, len(audio), len(audio) // 20):
        damaged = bytearray(audio)
        damaged[place] ^= 0x10
        monkeypatch.setattr(segments, "read_audio_files", lambda _, damaged=damaged: [bytes(damaged)])
        (segment,) = data.read([0])
        assert segment.error is not None
        assert not segment.waveform.any()


def test_truncated_shard_is_masked_and_missing_shard_fails(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "all", [4, 4])
    config = data_config(shards=folder, num_workers=1)
    tar = folder / "shard-000001.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    (first,) = batches(config, 1)
    assert 0 < first.mask.sum() < BATCH
    assert any("cut off" in error for error in first.errors)
    tar.unlink()
    with pytest.raises(CodectokError, match=r"cannot be read: .*shard-000001\.tar") as caught:
        batches(config, 2)
    assert "\n" not in str(caught.value)


def test_many_damaged_samples_in_a_row_fail(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "all", SIZES)
    damage(folder, {f"all-{n}" for n in range(TOTAL)} - {"all-20"})
    config = data_config(shards=folder, num_workers=2, max_unreadable_in_a_row=10)
    with pytest.raises(CodectokError, match=r"10 samples in a row .*: The sample all-"):
        batches(config, 8)


@pytest.mark.slow
def test_replayed_sources_come_at_their_rate(tmp_path: Path) -> None:
    names = {"now": [10, 10], "before": [5, 5, 10], "old": [50, 50]}
    places = {name: write_shards(tmp_path / name, sizes) for name, sizes in names.items()}
    config = data_config(
        sources=[
            {"shards": places["now"]},
            {"shards": places["before"], "replay": 0.6},
            {"shards": places["old"], "replay": 0.01},
        ],
        batch_size=11,
        num_workers=2,
    )
    assert segment_reader(config).stream.stages[0].mixture.period == 20 + 12 + 1
    stream = keys_of(batches(config, 5 * 3))
    for epoch in range(5):
        keys = stream[epoch * 33 : (epoch + 1) * 33]
        assert Counter(key.partition("-")[0] for key in keys) == {"now": 20, "before": 12, "old": 1}
        assert sorted(key for key in keys if key.startswith("now")) == sorted(f"now-{n}" for n in range(20))
    before = [key for key in stream if key.startswith("before")]
    assert all(count == 3 for count in Counter(before[:60]).values())  # 5 epochs at 0.6: each of 20 three times
    rest = keys_of(batches(config, 8, position=7 * 11))
    assert rest == stream[7 * 11 :]
    assert global_keys(config, 15, 0, 2) == stream


def test_mixture_weights_are_exact_in_every_batch(tmp_path: Path) -> None:
    places = [write_shards(tmp_path / name, sizes) for name, sizes in (("a", [3]), ("b", [40]), ("c", [7, 7]))]
    weights = (0.5, 0.3, 0.2)
    sources = [{"shards": place, "weight": weight} for place, weight in zip(places, weights, strict=True)]
    for batch in batches(data_config(sources=sources, batch_size=10), 9):
        assert Counter(key[0] for key in batch.keys) == {"a": 5, "b": 3, "c": 2}


def test_category_selects_samples(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "all", [4, 7, 1, 6], ["speech", "music", None])
    music = [{"shards": folder, "category": "music"}]
    stream = keys_of(batches(data_config(sources=music, batch_size=6, num_workers=1), 3))
    every = sorted(f"all-{n}" for n in range(18) if n % 3 == 1)
    assert [sorted(stream[first : first + 6]) for first in (0, 6, 12)] == [every] * 3
    both = [{"shards": folder, "category": "music", "weight": 1}, {"shards": folder, "category": "speech", "weight": 3}]
    for batch in batches(data_config(sources=both, batch_size=4), 5):
        assert Counter(int(key[4:]) % 3 for key in batch.keys) == {0: 3, 1: 1}
    with pytest.raises(InputError, match=r"noise of .*all; the categories there are music, speech\."):
        segment_reader(data_config(sources=[{"shards": folder, "category": "noise"}]))


def test_stages_change_at_their_steps_and_resume(tmp_path: Path) -> None:
    a, b = (write_shards(tmp_path / name, [4, 4]) for name in "ab")
    stages = [{"steps": 3, "sources": [{"shards": a}]}, {"sources": [{"shards": b}, {"shards": a, "replay": 0.5}]}]
    config = data_config(stages=stages, batch_size=4, num_workers=1)
    stream = batches(config, 9)
    assert all(key.startswith("a-") for key in keys_of(stream[:3]))
    assert Counter(key[0] for key in keys_of(stream[3:6])) == {"b": 8, "a": 4}
    assert keys_of(batches(config, 5, position=16)) == keys_of(stream[4:])


def test_stream_hash_covers_only_consumed_samples(tmp_path: Path) -> None:
    a, b = (write_shards(tmp_path / name, [4, 4]) for name in "ab")
    alone = segment_reader(data_config(shards=a)).stream
    later = [{"steps": 3, "sources": [{"shards": a}]}, {"sources": [{"shards": b}]}]
    staged = segment_reader(data_config(stages=later)).stream
    assert alone.hash_before(3 * BATCH) == staged.hash_before(3 * BATCH)
    assert alone.hash_before(4 * BATCH) != staged.hash_before(4 * BATCH)
    assert alone.hash_before(BATCH) != segment_reader(data_config(shards=b)).stream.hash_before(BATCH)
    half = [{"shards": a, "weight": 1}, {"shards": b, "weight": 1}]
    third = [{"shards": a, "weight": 1}, {"shards": b, "weight": 2}]
    hashes = {segment_reader(data_config(sources=sources)).stream.hash_before(1) for sources in (half, third)}
    assert len(hashes) == 2


def test_validation_clips_are_fixed_and_not_trained_on(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "all", [4, 5, 3, 4], n_validation=2)
    data = data_config(shards=folder)
    assert set(keys_of(batches(data, 6))) == {f"all-{n}" for n in range(9)}

    def clips(**options: Any) -> list[np.ndarray]:
        config = ValidationConfig.model_validate({"shards": folder, **options})
        return validation_clips(config, data, SAMPLE_RATE, min_samples=240)

    assert [len(clip) for clip in clips()] == [1000 + 7 * n for n in range(9, 16)]
    assert float(clips()[2][0]) == 11 * STEP
    assert [len(clip) for clip in clips(clips=3)] == [1000 + 7 * n for n in (9, 11, 13)]
    assert {len(clip) for clip in clips(max_seconds=0.01)} == {240}
    with pytest.raises(InputError, match=r"shorter than 0\.010 s"):
        clips(max_seconds=0.009)
    other = write_shards(tmp_path / "none", [2])
    assert len(clips(shards=other)) == 2
    with pytest.raises(InputError, match="none is left"):
        validation_clips(ValidationConfig(shards=(other,)), data_config(shards=other), SAMPLE_RATE, min_samples=1)
    damage(folder, {"all-10"})
    with pytest.raises(InputError, match="The sample all-10 in"):
        clips()


@pytest.mark.parametrize(("store", "num_workers"), [("memory", 0), ("memory", 2), ("s3", 0), ("s3", 2)])
def test_shards_at_a_url_yield_the_same_batches(
    store: str, num_workers: int, folder: Path, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue("s3") if store == "s3" else f"memory://{uuid.uuid4().hex}"
    url = upload(folder, f"{root}/shards")
    remote = batches(data_config(shards=url, num_workers=num_workers), 8)
    for one, other in zip(remote, batches(data_config(shards=folder), 8), strict=True):
        assert torch.equal(one.waveforms, other.waveforms)
        assert one.keys == other.keys
    open_storage(url).remove("")


def test_only_needed_indices_are_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def noted(storage: Storage, name: str) -> list[IndexedSample]:
        read.append(name)
        return read_index(storage, name)

    monkeypatch.setattr("codectok.train.data.sources.read_index", noted)
    many = write_shards(tmp_path / "many", [2] * 40)
    data = segment_reader(data_config(shards=many))
    assert read == []
    data.read(range(70, 76))
    assert len(read) <= 4
    for position in range(80):
        data.stream.address(position)
    assert len(data.stream._indices._held) <= 4


def test_shards_with_another_sample_rate_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"24000 Hz.* 16000 Hz"):
        SegmentReader(data_config(shards=folder), 16_000, 4000, 0)


def test_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no shards\.json"):
        segment_reader(data_config(shards=tmp_path))
    with pytest.raises(InputError, match="no segments to train on"):
        segment_reader(data_config(shards=write_shards(tmp_path / "held", [2], n_validation=1)))
