from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from codectok import Codec
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.shard.job import ShardJob
from codectok.pipelines.shard.options import ShardOptions
from codectok.shards import (
    INDEX_FOLDER,
    MANIFEST_FILE,
    Sample,
    ShardEntry,
    ShardManifest,
    ShardWriter,
    index_path,
    read_index,
    write_index,
)
from codectok.storage import open_storage
from codectok.train import SegmentLoader, TrainConfig, load_train_config
from codectok.train.run.checkpoint import latest_checkpoint, load_training_state
from codectok.train.run.preparation import open_segments
from codectok.train.run.run import TrainingReport

TINY = [
    "codec.name=tiny",
    "codec.mel.n_mels=40",
    "codec.encoder.depths=[2]",
    "codec.encoder.dims=[16]",
    "codec.encoder.drop_path_rate=0.4",
    "codec.quantizer.type=grvq",
    "codec.quantizer.codebook_size=64",
    "codec.quantizer.codebook_dim=8",
    "codec.quantizer.n_residuals=2",
    "codec.decoder.initial_channels=8",
    "codec.decoder.upsample_rates=[16,16]",
    "codec.decoder.upsample_kernel_sizes=[16,16]",
    "codec.decoder.resblock_kernel_sizes=[3]",
    "codec.decoder.resblock_dilations=[[1]]",
    "discriminators.start_step=2",
    "data.segment_seconds=0.25",
    "data.batch_size=4",
    "log_interval=2",
    "checkpoint_interval=3",
]


@pytest.fixture(scope="session")
def shards(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train") / "shards"
    options = RunOptions(engine="local", max_rejects=1.0)
    run_job(ShardJob(ShardOptions(shard_seconds=15.0)), [str(corpus)], folder, options)
    return folder


@pytest.fixture(scope="session")
def held_out(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards to validate on."""
    folder = tmp_path_factory.mktemp("validation") / "shards"
    options = RunOptions(engine="local", max_rejects=1.0)
    run_job(ShardJob(ShardOptions(shard_seconds=15.0, max_seconds=5.0)), [str(corpus)], folder, options)
    return folder


def damage(folder: Path, keys: set[str], write: bytes = b"damaged") -> None:
    """Overwrite the beginning of the audio of some samples."""
    for path in sorted(folder.glob("*.tar")):
        for row in read_index(open_storage(folder), path.name).to_pylist():
            if row["key"] in keys:
                with path.open("r+b") as file:
                    file.seek(row["offset"])
                    file.write(write)


def first_batches(config: TrainConfig) -> Iterator[Tensor]:
    """All batches of a run, for all ranks together."""
    loader = SegmentLoader(open_segments(config), config.data)
    return (batch.filled() for batch in itertools.islice(loader, config.steps))


def tiny_config(shards: Path, output: Path, *overrides: str, steps: int = 7) -> TrainConfig:
    """A complete run that takes seconds."""
    own_codec = [override for override in TINY if override.startswith("codec.")]
    rest = [override for override in TINY if not override.startswith("codec.")]
    paths = [f"data.shards={shards}", f"output={output}", f"steps={steps}"]
    return load_train_config("nano", ["codec={}", *own_codec, *rest, *paths, *overrides])


def codec_of(report: TrainingReport) -> Codec:
    """Open the codec that a run has written."""
    assert report.codec is not None
    return Codec.from_pretrained(report.codec, device="cpu")


def final_state(output: Path) -> dict[str, Any]:
    """State of the newest checkpoint."""
    checkpoint = latest_checkpoint(output / "checkpoints")
    assert checkpoint is not None
    return load_training_state(checkpoint)


def assert_equal(a: object, b: object, path: str = "") -> None:
    """Assert that two training states are equal to the bit."""
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor), path
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert isinstance(b, dict), path
        assert a.keys() == b.keys(), path
        for key in a:
            assert_equal(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple), path
        for n, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_equal(one, other, f"{path}[{n}]")
    else:
        assert a == b, path


SAMPLE_RATE = 24_000
STEP = 1 / 4096  # difference between the constant values of consecutive samples


def write_shards(
    folder: Path, sizes: list[int], categories: list[str | None] | None = None, n_validation: int = 0
) -> Path:
    """Write shards with `sizes` samples each, the last `n_validation` of them for validation.

    Sample n has the key NAME-n, the constant value n * STEP, and a category taken from `categories` in turn.
    """
    (folder / INDEX_FOLDER).mkdir(parents=True)
    entries, number = [], 0
    for place, size in enumerate(sizes):
        path = folder / f"shard-{place:06d}.tar"
        counts: Counter[str] = Counter()
        with ShardWriter(path) as writer:
            for _ in range(size):
                category = categories[number % len(categories)] if categories else None
                counts.update([category] if category else [])
                n_samples = 1000 + 7 * number
                sample = Sample(
                    dataset=folder.name, source=f"{number}.wav", start=0.0, duration=n_samples / SAMPLE_RATE,
                    sample_rate=SAMPLE_RATE, n_samples=n_samples, category=category,
                )  # fmt: skip
                writer.write(f"{folder.name}-{number}", np.full(n_samples, number * STEP, np.float32), sample)
                number += 1
        write_index(index_path(folder, path.name), writer.index)
        entries.append(
            ShardEntry(
                name=path.name,
                samples=size,
                seconds=sum(sample.n_samples for sample in writer.index) / SAMPLE_RATE,
                bytes=path.stat().st_size,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                split="validation" if place >= len(sizes) - n_validation else "train",
                categories=dict(counts),
            )
        )
    manifest = ShardManifest(sample_rate=SAMPLE_RATE, shards=tuple(entries))
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json())
    return folder
