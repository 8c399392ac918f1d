"""`codectok export codec`: the codec of a checkpoint equals the one that the run writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from codectok.train import train
from tests.helpers.command_line import assert_refused, codectok
from tests.train.conftest import tiny_config


@pytest.mark.parametrize("average", ["0.9", "null"])
def test_codec_of_newest_checkpoint_equals_that_of_the_run(average: str, shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny_config(shards, run, f"weight_average={average}", steps=4))
    for source, name in ((run, "of-run"), (run / "checkpoints" / "step-00000004", "of-checkpoint")):
        result = codectok("export", "codec", source, tmp_path / name)
        assert result.exit_code == 0, result.output
        for file in ("config.json", "model.safetensors"):
            assert (tmp_path / name / file).read_bytes() == (run / "codec" / file).read_bytes()
    assert_refused(codectok("export", "codec", run, tmp_path / "of-run"), "not empty")
    assert_refused(codectok("export", "codec", tmp_path / "of-run", tmp_path / "new"), "neither a training checkpoint")
    state = run / "checkpoints" / "step-00000004" / "training.pt"
    state.write_bytes(state.read_bytes()[:-100])
    assert_refused(codectok("export", "codec", run, tmp_path / "new"), "training.pt")
    shutil.rmtree(run / "checkpoints")
    assert_refused(codectok("export", "codec", run, tmp_path / "new"), "neither a training checkpoint")
    assert not (tmp_path / "new").exists()
