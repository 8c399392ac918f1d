from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from codectok import CheckpointError, Codec, ConfigError
from codectok.model.hifigan import HiFiGANDecoder

Components = dict[str, dict[str, torch.Tensor]]


@pytest.fixture
def directory(golden: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(golden, tmp_path / "distilcodec"))


def rewrite(directory: Path, change: Callable[[Components], object]) -> None:
    path = directory / "g_00000042"
    components = torch.load(path, weights_only=True)
    change(components)
    torch.save(components, path)


def rename_weight_norm(components: Components) -> None:
    old = components["generator"]
    components["generator"] = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for key, value in old.items()
    }
    assert components["generator"].keys() != old.keys()


def test_both_weight_norm_names_import_same_codec(directory: Path) -> None:
    fingerprint = Codec.from_distilcodec(directory).fingerprint
    rewrite(directory, rename_weight_norm)
    assert Codec.from_distilcodec(directory).fingerprint == fingerprint


def test_folded_kernels_have_norm_of_magnitude(directory: Path) -> None:
    stored = torch.load(directory / "g_00000042", weights_only=True)["generator"]
    decoder = Codec.from_distilcodec(directory).network.decoder
    assert isinstance(decoder, HiFiGANDecoder)
    folded = decoder.upsamples[1].weight
    assert isinstance(folded, torch.Tensor)
    norms = torch.linalg.vector_norm(folded, dim=(1, 2))
    torch.testing.assert_close(norms, stored["ups.1.parametrizations.weight.original0"].flatten().abs())


def test_import_needs_exact_step(directory: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no step 4; it holds 42"):
        Codec.from_distilcodec(directory, step=4)
    shutil.copy(directory / "g_00000042", directory / "g_00000100")
    with pytest.raises(CheckpointError, match=r"several steps \(42, 100\)"):
        Codec.from_distilcodec(directory)
    assert "g_00000100" in Codec.from_distilcodec(directory, step=100).header.origin


@pytest.mark.parametrize(
    ("component", "key"),
    [
        ("encoder", "downsample_layers.1.1.weight"),
        ("encoder", "stages.2.1.pwconv1.weight"),
        ("quantizer", "grvq.rvqs.0.layers.0._codebook.embed"),
        ("quantizer", "upsample.0.0.weight"),
        ("generator", "ups.2.parametrizations.weight.original1"),
        ("generator", "conv_post.bias"),
    ],
)
def test_missing_or_misshapen_tensor_is_named(directory: Path, component: str, key: str) -> None:
    rewrite(directory, lambda components: components[component].update({key: torch.zeros(3, 3)}))
    with pytest.raises(CheckpointError, match=re.escape(f"'{component}.{key}' has shape [3, 3]")):
        Codec.from_distilcodec(directory)
    rewrite(directory, lambda components: components[component].pop(key))
    with pytest.raises(CheckpointError, match=f"has no tensor '{component}"):
        Codec.from_distilcodec(directory)


def test_unknown_tensor_is_named(directory: Path) -> None:
    rewrite(directory, lambda components: components["encoder"].update({"surprise": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=r"encoder\.surprise"):
        Codec.from_distilcodec(directory)


def test_invalid_checkpoint_files_are_refused(directory: Path, tmp_path: Path) -> None:
    (directory / "g_00000042").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        Codec.from_distilcodec(directory)
    torch.save({"generator": {}}, directory / "g_00000042")
    with pytest.raises(CheckpointError, match="must hold encoder, quantizer, generator"):
        Codec.from_distilcodec(directory)
    (directory / "model_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no model_config\.json"):
        Codec.from_distilcodec(directory)
    with pytest.raises(CheckpointError, match="no folder"):
        Codec.from_distilcodec(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("section", "key", "value", "error"),
    [
        ("encoder", "input_channels", 100, CheckpointError),
        ("quantizer", "quantizer_type", "grfsq", ConfigError),
        ("decoder", "use_template", True, ConfigError),
        ("spec_transform", "hop_size", 300, ConfigError),
    ],
)
def test_unsupported_configurations_are_refused(
    directory: Path, section: str, key: str, value: object, error: type[Exception]
) -> None:
    path = directory / "model_config.json"
    config = json.loads(path.read_text())
    config[section][key] = value
    path.write_text(json.dumps(config))
    with pytest.raises(error):
        Codec.from_distilcodec(directory)
