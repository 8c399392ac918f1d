"""Sizes in configurations are compared with the tensors beside them before a network is built."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from codectok.codec import Codec
from codectok.errors import InputError
from codectok.exports.tokenizer import load_tokenizer
from tests.helpers.command_line import assert_refused, codectok
from tests.helpers.tokenizers import save_tokenizer

SECONDS = 60.0  # a hang takes minutes
MANY = {
    "depths": ("encoder", {"depths": [4000, 48, 48]}),
    "groups": ("quantizer", {"n_groups": 64, "n_residuals": 64}),
    "time factors": ("quantizer", {"time_factors": [1] * 60}),
    "dilations": ("decoder", {"resblock_dilations": [[1] * 64] * 20, "resblock_kernel_sizes": [3] * 20}),
}


@pytest.mark.parametrize("name", MANY)
def test_network_with_more_modules_than_tensors_is_not_built(codec_folder: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(codec_folder, tmp_path / "codec"))
    section, fields = MANY[name]
    header = json.loads((folder / "config.json").read_text())
    header["config"][section] |= fields
    (folder / "config.json").write_text(json.dumps(header))
    started = time.monotonic()
    assert_refused(codectok("inspect", folder), "tensors")
    assert time.monotonic() - started < SECONDS


@pytest.mark.parametrize("preset", ["nano", "small", "distilcodec-v1", "distilcodec-teacher"])
def test_bound_of_modules_is_below_the_number_of_tensors(preset: str) -> None:
    import torch

    from codectok.config import PRESETS
    from codectok.model.network import CodecNetwork

    with torch.device("meta"):
        network = CodecNetwork(PRESETS[preset])
    assert PRESETS[preset].n_modules <= len(network.state_dict())


def test_distilcodec_configuration_with_many_modules_is_refused(golden: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(golden, tmp_path / "checkpoint"))
    described = json.loads((folder / "model_config.json").read_text())
    width = described["encoder"]["dims"][-1]
    wrong: tuple[dict[str, Any], ...] = ({"depths": [3000, 1], "dims": [16, width]}, {"dims": [], "depths": []})
    for fields in wrong:
        changed = {**described, "encoder": {**described["encoder"], **fields}}
        (folder / "model_config.json").write_text(json.dumps(changed))
        started = time.monotonic()
        with pytest.raises(InputError):
            Codec.from_distilcodec(folder, device="cpu")
        assert time.monotonic() - started < SECONDS


LANGUAGE_MODELS = {
    "layers": {"num_hidden_layers": 10**9},
    "many layers": {"num_hidden_layers": 60_000},
    "heads": {"num_attention_heads": 10**12},
    "rows": {"vocab_size": 10**12},
    "width": {"hidden_size": 10**30},
}


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_language_model_with_absurd_sizes_is_refused(codec_folder: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("transformers")
    from tests.helpers.language_models import qwen2, write_model

    write_model(tmp_path / "model", qwen2())
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | LANGUAGE_MODELS[name]))
    started = time.monotonic()
    command = ("export", "language-model", tmp_path / "model", tmp_path / "out", "--codec", codec_folder)
    assert_refused(codectok(*command))
    assert time.monotonic() - started < SECONDS


@pytest.mark.parametrize("place", ["vocab", "added"])
def test_token_with_an_absurd_id_is_refused(place: str, tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    if place == "vocab":
        vocabulary[next(iter(vocabulary))] = 2**31
    else:
        tokenizer["added_tokens"][0]["id"] = 2**31
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(InputError, match="2147483648"):
        load_tokenizer(tmp_path)
