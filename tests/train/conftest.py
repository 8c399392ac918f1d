from __future__ import annotations

from pathlib import Path

import pytest

from codectok.pipelines.engine import RunOptions, run_job
from codectok.pipelines.shard import ShardJob, ShardOptions
from codectok.train.config import TrainConfig, load_train_config

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


def tiny_config(shards: Path, output: Path, *overrides: str, steps: int = 7) -> TrainConfig:
    """A run that takes seconds, with everything that a real one has."""
    own_codec = [override for override in TINY if override.startswith("codec.")]
    rest = [override for override in TINY if not override.startswith("codec.")]
    paths = [f"data.shards={shards}", f"output={output}", f"steps={steps}"]
    return load_train_config("nano", ["codec={}", *own_codec, *rest, *paths, *overrides])
