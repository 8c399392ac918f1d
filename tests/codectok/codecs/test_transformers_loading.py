"""Codecs of transformers: names, folders and errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import codectok
from codectok.codecs.transformers_models.families import FAMILIES
from codectok.codecs.transformers_models.loading import load
from codectok.errors import CheckpointError, InputError
from tests.helpers import transformers_models
from tests.helpers.hub_server import hub_server

Folders = Callable[[str], Path]


@pytest.fixture
def model(tiny_model: Folders, tmp_path: Path) -> Path:
    """A copy of a tiny model, to change."""
    return Path(shutil.copytree(tiny_model("dac"), tmp_path / "copy"))


def _edit_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_table_has_all_families() -> None:
    assert set(FAMILIES) == set(transformers_models.FAMILIES)


def test_copied_folder_keeps_fingerprint_and_name(tiny_model: Folders, model: Path) -> None:
    _edit_config(model, transformers_version="5.0.0", _name_or_path="elsewhere", architectures=None)
    original, copy = load(str(tiny_model("dac"))), load(str(model))

    assert (copy.fingerprint, copy.name) == (original.fingerprint, original.name)
    assert load(f"{model}@3").fingerprint == original.fingerprint, "3 are all codebooks"


def test_fingerprint_depends_on_codebooks_weights_and_configuration(model: Path) -> None:
    before = load(str(model))
    fewer = load(f"{model}@2")
    _edit_weights(model, lambda tensors: tensors["encoder.conv1.bias"].add_(0.5))
    other_weights = load(str(model))
    _edit_config(model, sampling_rate=16_000)
    other_rate = load(str(model))

    assert len({codec.fingerprint for codec in (before, fewer, other_weights, other_rate)}) == 4
    assert before.weights_sha256 == fewer.weights_sha256 != other_weights.weights_sha256


def test_loading_prints_nothing(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(str(model))

    assert capfd.readouterr() == ("", "")


def test_folder_with_at_sign_in_its_name_loads(model: Path) -> None:
    renamed = model.rename(model.with_name("dac@2"))

    assert load(str(renamed)).n_codebooks == 3
    assert load(f"{renamed}@1").n_codebooks == 1
    assert codectok.loading.absolute_codec_name(f"transformers:{renamed}") == f"transformers:{renamed}"


@pytest.mark.parametrize(
    ("family", "count", "possible"),
    [
        ("encodec", 3, "1, 2, 4"), ("dac", 4, "1, 2, 3"), ("mimi", 0, "1, 2, 3, 4"), ("xcodec", 3, "1, 2, 4"),
        ("xcodec2", 2, "1"), ("neucodec", 2, "1"), ("wavtokenizer", 2, "1"), ("higgs_audio_v2_tokenizer", 5, "1, 2, 4"),
    ],
)  # fmt: skip
def test_impossible_number_of_codebooks_names_possible_ones(
    tiny_model: Folders, family: str, count: int, possible: str
) -> None:
    with pytest.raises(CheckpointError, match=f"possible are {possible}"):
        load(f"{tiny_model(family)}@{count}")


@pytest.mark.parametrize("count", ["", "x", "-1", "1.5"])
def test_number_of_codebooks_must_be_a_number(model: Path, count: str) -> None:
    with pytest.raises(CheckpointError, match="number of codebooks"):
        load(f"{model}@{count}")


@pytest.mark.parametrize(
    ("model_type", "noun"),
    [
        ("pocket_tts_audio_tokenizer", "continuous"),
        ("vibevoice_acoustic_tokenizer", "continuous"),
        ("vibevoice", "continuous"),
        ("bert", "a bert"),
        (None, "without a type"),
        (7, "without a type"),
    ],
)
def test_other_model_types_are_refused_with_the_list(model: Path, model_type: object, noun: str) -> None:
    _edit_config(model, model_type=model_type)

    with pytest.raises(CheckpointError, match=noun) as raised:
        load(str(model))

    assert ", ".join(FAMILIES) in str(raised.value)


@pytest.mark.parametrize(
    ("values", "noun"),
    [
        ({"chunk_length_s": 1.0, "overlap": 0.01}, "chunk_length_s"),
        ({"normalize": True}, "normalize"),
        ({"audio_channels": 2}, "channels"),
    ],
)
def test_encodec_with_more_than_codes_is_refused(
    tiny_model: Folders, tmp_path: Path, values: dict[str, object], noun: str
) -> None:
    folder = Path(shutil.copytree(tiny_model("encodec"), tmp_path / "copy"))
    _edit_config(folder, **values)

    with pytest.raises(CheckpointError, match=noun):
        load(str(folder))


def test_extractor_that_changes_levels_is_refused(tiny_model: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model("wavtokenizer"), tmp_path / "copy"))
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "normalize_audio": True}))

    with pytest.raises(CheckpointError, match="peak"):
        load(str(folder))


def _drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["encoder.conv1.bias"]


def _spoil(tensors: dict[str, torch.Tensor]) -> None:
    tensors["encoder.conv1.bias"][0] = torch.nan


def _reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["encoder.conv1.bias"] = torch.zeros(5)


@pytest.mark.parametrize(("edit", "noun"), [(_drop, "lack"), (_spoil, "not finite"), (_reshape, "cannot be loaded")])
def test_wrong_weights_are_an_error(
    model: Path, edit: Callable[[dict[str, torch.Tensor]], None], noun: str, capfd: pytest.CaptureFixture[str]
) -> None:
    _edit_weights(model, edit)

    with pytest.raises(CheckpointError, match=noun) as raised:
        load(str(model))

    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("family", "values"),
    [
        ("dac", {"codebook_size": 0}),
        ("dac", {"n_codebooks": 0}),
        ("dac", {"n_codebooks": 10**9}),
        ("encodec", {"upsampling_ratios": [0]}),
        ("encodec", {"target_bandwidths": []}),
        ("encodec", {"num_lstm_layers": 10**9}),
        ("mimi", {"num_semantic_quantizers": 100}),
    ],
)
def test_impossible_sizes_are_one_sentence(
    tiny_model: Folders, tmp_path: Path, family: str, values: dict[str, object]
) -> None:
    folder = Path(shutil.copytree(tiny_model(family), tmp_path / "copy"))
    _edit_config(folder, **values)
    with pytest.raises(CheckpointError) as raised:
        load(str(folder))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_nested_configuration_is_one_sentence(model: Path, file: str) -> None:
    (model / file).write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="nested too deeply"):
        load(str(model))


def test_spare_weights_are_a_warning(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = load(str(model)).fingerprint
    _edit_weights(model, lambda tensors: tensors.update({"encoder.extra": torch.zeros(1)}))
    assert load(str(model)).fingerprint == before
    assert "encoder.extra" in caplog.text


def test_damaged_files_are_an_error(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="weights"):
        load(str(model))
    weights.unlink()
    with pytest.raises(CheckpointError, match="weights"):
        load(str(model))
    _edit_config(model, codebook_size="many")
    with pytest.raises(CheckpointError, match="configuration"):
        load(str(model))
    (model / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="must hold keys and values"):
        load(str(model))
    (model / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be parsed"):
        load(str(model))
    (model / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(str(model))


def test_configuration_that_cannot_encode_is_an_error(tiny_model: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model("higgs_audio_v2_tokenizer"), tmp_path / "copy"))
    _edit_config(folder, downsample_factor=960)  # twice as many semantic frames as acoustic ones

    with pytest.raises(CheckpointError, match="cannot encode"):
        load(str(folder))


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no folder"):
        load(str(tmp_path / "nothing"))


def test_other_precision_is_refused(model: Path) -> None:
    with pytest.raises(InputError, match="float32"):
        load(str(model), dtype="bfloat16")


def test_name_on_hub_loads_with_its_commit(
    tiny_model: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_model("dac")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with hub_server() as hub:
        hub.use(monkeypatch, tmp_path)
        commit = hub.add("lab/dac", {**files, "README.md": b"", "pytorch_model.bin": b"large"})
        hub.add("lab/gated", files, gated=True)
        hub.add("lab/bert", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"large"})

        codec = codectok.load_codec("transformers:lab/dac@2", "cpu")

        assert codec.describe().revision == commit
        assert codec.fingerprint == load(f"{folder}@2").fingerprint
        assert sorted(hub.downloads()) == ["config.json", "model.safetensors", "preprocessor_config.json"]
        for name, noun in {"lab/gated": "gated", "lab/none": "no such name", "lab/bert": "a bert"}.items():
            with pytest.raises(CheckpointError, match=noun):
                load(name)
    assert load("lab/dac@2").fingerprint == codec.fingerprint, "from the cache"
