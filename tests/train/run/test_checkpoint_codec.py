"""`codectok export codec`: the codec of a checkpoint equals the one that the run writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from codectok import Codec
from codectok.errors import CodectokError
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


def test_weights_in_half_precision_are_rounded_once(shards: Path, tmp_path: Path) -> None:
    run, half = tmp_path / "run", tmp_path / "half"
    train(tiny_config(shards, run, steps=4))
    result = codectok("export", "codec", run, half, "--dtype", "float16")
    assert result.exit_code == 0, result.output
    whole, rounded = Codec.from_pretrained(run / "codec"), Codec.from_pretrained(half)
    assert (half / "model.safetensors").stat().st_size < 0.6 * (run / "codec" / "model.safetensors").stat().st_size
    # What is printed is the codec that is loaded, not the one that was stored.
    assert rounded.describe().label in result.output
    assert rounded.fingerprint != whole.fingerprint
    for name, tensor in rounded.network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, whole.network.state_dict()[name].half().float()), name
    rounded.save_pretrained(tmp_path / "again", "float16")
    assert Codec.from_pretrained(tmp_path / "again").fingerprint == rounded.fingerprint


def test_a_weight_beyond_half_precision_is_refused(tmp_path: Path) -> None:
    codec = Codec.from_config("nano")
    next(iter(codec.network.parameters()))[0] = 1e5
    with pytest.raises(CodectokError, match="is too large for float16; write the codec in float32"):
        codec.save_pretrained(tmp_path / "codec", "float16")
    codec.save_pretrained(tmp_path / "codec")
