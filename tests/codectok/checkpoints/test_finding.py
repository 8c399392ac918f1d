"""Folders of codecs by name: ours, DistilCodec's with or without a step, and other folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from codectok import CheckpointError, Codec, load_codec, open_table
from codectok.audio.files import read_audio
from codectok.checkpoints.finding import find_codec
from codectok.loading import absolute_codec_name
from tests.helpers.command_line import assert_refused, codectok
from tests.helpers.storage import DATA

STUDENT = DATA / "golden" / "student"


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DistilCodec folder with the steps 42 and 204000, in the working folder."""
    monkeypatch.chdir(tmp_path)
    folder = Path("distil")
    folder.mkdir()
    shutil.copy(STUDENT / "model_config.json", folder)
    for step in ("g_00000042", "g_00204000"):
        shutil.copy(STUDENT / "g_00000042", folder / step)
    return folder


def test_distilcodec_folder_loads_by_name(steps: Path) -> None:
    codec = load_codec(f"{steps}@204000", "cpu")
    assert isinstance(codec, Codec)
    assert codec.fingerprint == Codec.from_distilcodec(STUDENT, device="cpu").fingerprint
    assert "g_00204000" in codec.header.origin
    assert codec.describe().revision is None
    for name in (f"{steps}@00204000", f"{steps}/@204000", f"{steps.absolute()}@204000"):
        assert absolute_codec_name(name) == f"{steps.absolute()}@204000"
    assert absolute_codec_name(STUDENT) == f"{STUDENT.resolve()}@42"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("distil", r"several steps .42, 204000.; choose one: distil@204000"),
        ("distil@7", "no step 7; it holds 42, 204000"),
        ("distil@", "@ is not a step"),
        ("distil@last", "@last is not a step"),
        ("distil@123456789", "@123456789 is not a step"),
        ("distil@-42", "@-42 is not a step"),
        ("ours@42", "has no steps to choose from"),
        ("empty", "is not a codec"),
        ("empty@3", "has no steps to choose from"),
        ("mimi", "name it transformers:mimi"),
        ("sharded", "name it transformers:sharded"),
        ("nothing@42", "no codec folder nothing@42"),
        ("distil/g_00000042", "no codec folder"),
        ("", "name of the codec is empty"),
    ],
)
def test_unusable_folder_is_one_sentence(name: str, message: str, steps: Path, codec_folder: Path) -> None:
    shutil.copytree(codec_folder, "ours")
    Path("empty").mkdir()
    for model, weights in (("mimi", "model.safetensors"), ("sharded", "model-00001-of-00002.safetensors")):
        Path(model).mkdir()
        (Path(model) / "config.json").write_text(json.dumps({"model_type": "mimi"}))
        (Path(model) / weights).write_bytes(b"")
    with pytest.raises(CheckpointError, match=message):
        load_codec(name, "cpu")
    with pytest.raises(CheckpointError, match=message):
        absolute_codec_name(name)


def test_folder_name_may_contain_at_and_colon(steps: Path, codec_folder: Path) -> None:
    shutil.copytree(codec_folder, "ours@42")
    shutil.copytree(codec_folder, "distil@42")  # goes before the step of `distil`
    shutil.copytree(STUDENT, "a:b@c")
    for name, found in {
        "ours@42": ("ours@42", None),
        "distil@42": ("distil@42", None),
        "distil/@42": ("distil", 42),
        "a:b@c": ("a:b@c", 42),
        "a:b@c@42": ("a:b@c", 42),
    }.items():
        place, again = find_codec(name), find_codec(absolute_codec_name(name))
        assert (
            (place.folder.resolve(), place.step) == (again.folder, again.step) == (Path(found[0]).resolve(), found[1])
        )
    assert load_codec("a:b@c@42", "cpu").name == "distilcodec"


def test_commands_take_a_step(steps: Path, corpus: Path) -> None:
    name, source = f"{steps}@42", corpus / "a.wav"
    for command in (
        ["tokenize", source, "table", "--engine", "local"],
        ["verify", "table", "--reencode", 1],
        ["encode", source, "codes.npz"],
        ["decode", "codes.npz", "decoded"],
    ):
        result = codectok(*command, "--codec", name)
        assert result.exit_code == 0, result.output
    codec = load_codec(STUDENT, "cpu")
    (row,) = open_table("table")
    np.testing.assert_array_equal(row.codes, codec.encode(read_audio(source, codec.sample_rate), codec.sample_rate))
    assert_refused(codectok("tokenize", source, "other", "--engine", "local", "--codec", steps), "choose one")


def test_inspect_shows_distilcodec_folders(steps: Path) -> None:
    fingerprint = load_codec(STUDENT, "cpu").fingerprint
    for name in (STUDENT, f"{steps}@42"):
        result = codectok("inspect", name)
        assert result.exit_code == 0, result.output
        assert "imported from DistilCodec g_00000042" in result.output
        assert fingerprint[:12] in result.output
    several = codectok("inspect", steps)
    assert several.exit_code == 0, several.output
    assert "42, 204000; choose one: distil@204000" in several.output
    assert_refused(codectok("inspect", "distil/none.wav"), "no file, folder or codec preset")
