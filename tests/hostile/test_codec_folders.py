"""Codec folders that are damaged or absurd: each is refused in one sentence, quickly."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from codectok.errors import CheckpointError, InputError
from tests.helpers.command_line import assert_refused, codectok

SECONDS = 60.0  # a hang takes minutes


@pytest.fixture
def folder(codec_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(codec_folder, tmp_path / "codec"))


def refuse(folder: Path, *words: str) -> None:
    """Assert that the codec is refused in one sentence within seconds."""
    started = time.monotonic()
    result = codectok("inspect", folder)
    assert_refused(result, *words)
    assert time.monotonic() - started < SECONDS


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"config": ' * 100_000,
        '{"version": ' + "9" * 5_000 + "}",
        "{" + " " * (1 << 27) + "}",
        "\0\1\2",
        "",
    ],
    ids=["brackets", "objects", "digits", "large", "binary", "empty"],
)
def test_config_that_cannot_be_parsed_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    refuse(folder, "config.json")


HUGE = 10**12
ABSURD: dict[str, tuple[str, Any]] = {
    "rate": ("mel.sample_rate", HUGE),
    "transform": ("mel.n_fft", 1 << 40),
    "mels": ("mel.n_mels", HUGE),
    "widths": ("encoder.dims", [HUGE]),
    "depths": ("encoder.depths", [5_000_000, 1, 1]),
    "kernel": ("encoder.kernel_size", HUGE + 1),
    "groups": ("quantizer.n_groups", 3_000_000),
    "residuals": ("quantizer.n_residuals", 3_000_000),
    "codes": ("quantizer.codebook_size", HUGE),
    "code-width": ("quantizer.codebook_dim", HUGE),
    "time-factors": ("quantizer.time_factors", [2] * 3_000_000),
    "one-time-factor": ("quantizer.time_factors", [5_000_000]),
    "frame": ("quantizer.time_factors", [1000, 1000, 1000]),
    "channels": ("decoder.initial_channels", HUGE),
    "dilations": ("decoder.resblock_dilations", [[1] * 2_000_000]),
    "kernels": ("decoder.resblock_kernel_sizes", [3] * 1_000_000),
    "digits": ("mel.f_max", "9" * 400),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_size_is_refused_before_anything_is_built(folder: Path, name: str) -> None:
    key, value = ABSURD[name]
    section, field = key.split(".")
    header = json.loads((folder / "config.json").read_text())
    header["config"][section][field] = value
    (folder / "config.json").write_text(json.dumps(header))
    refuse(folder, "config.json")


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(folder: Path, value: float) -> None:
    change(folder, lambda tensors: tensors["decoder.pre.bias"].fill_(value))
    refuse(folder, "decoder.pre.bias", "not finite")


def test_one_weight_that_is_not_finite_is_found(folder: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["encoder.stem.weight"].view(-1)[-1] = float("nan")

    change(folder, spoil)
    refuse(folder, "encoder.stem.weight")


def test_tensor_file_that_is_damaged_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for damaged in (b"", whole[:4], whole[:-10], (1 << 60).to_bytes(8, "little") + whole[8:], b"\xff" * len(whole)):
        path.write_bytes(damaged)
        refuse(folder, "model.safetensors")


def test_distilcodec_checkpoint_with_other_values_is_refused(golden: Path, tmp_path: Path) -> None:
    """A list in place of a tensor, and a key that is not text."""
    from codectok.checkpoints.distilcodec import import_distilcodec

    source = golden
    state = torch.load(source / "g_00000042", weights_only=True)
    for place, value in (("bias", [1, 2]), ("key", torch.zeros(1))):
        target = tmp_path / place
        target.mkdir()
        shutil.copy(source / "model_config.json", target)
        changed = {name: dict(state[name]) for name in ("encoder", "quantizer", "generator")}
        changed["generator"]["conv_pre.bias" if place == "bias" else 7] = value
        torch.save(changed, target / "g_00000042")
        with pytest.raises((CheckpointError, InputError)) as refused:
            import_distilcodec(target)
        assert "conv_pre.bias" in str(refused.value) or "7" in str(refused.value)
