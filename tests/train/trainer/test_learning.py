"""Training on recordings lowers the mel error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.shard.job import ShardJob
from codectok.pipelines.shard.options import ShardOptions
from codectok.train import load_train_config, train

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
RECORDINGS = CACHE / "codectok" / "demo-audio" / "fillets-ng-data-nl"


@pytest.mark.slow
@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="scripts/recordings.sh has not been run")
def test_200_steps_on_recordings_halve_the_mel_error(tmp_path: Path) -> None:
    recordings = RECORDINGS / "usr" / "share" / "games" / "fillets-ng" / "sound"
    run_job(ShardJob(ShardOptions()), [f"{recordings}/a*/nl/*.ogg"], tmp_path / "shards", RunOptions("local"))
    overrides = [f"data.shards={tmp_path / 'shards'}", f"output={tmp_path / 'run'}", "data.batch_size=4"]
    schedule = ["steps=200", "log_interval=1", "checkpoint_interval=200", "discriminators.start_step=150"]
    errors: dict[int, float] = {}
    train(
        load_train_config("nano", [*overrides, *schedule]),
        lambda step, metrics: errors.update({step: metrics["mel_1024"]}),
    )
    assert sum(errors[step] for step in range(181, 201)) / 20 < errors[1] / 2
