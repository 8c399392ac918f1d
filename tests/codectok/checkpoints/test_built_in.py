"""The built-in codec: its tokens, its name, and its use where no codec is named."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from codectok import Codec, InputError, load_codec, open_table
from codectok.checkpoints.built_in import FOLDER, built_in_names
from codectok.checkpoints.finding import find_codec
from codectok.checkpoints.native import MODEL_FILE
from codectok.choices import DEFAULT_CODEC
from codectok.config import PRESETS
from codectok.loading import absolute_codec_name
from codectok.train import Trainer, load_stages, load_train_config
from codectok.train.trainer.warm_start import load_initial_checkpoint
from tests.helpers.command_line import assert_refused, codectok, one_line
from tests.helpers.storage import DATA

SPEECH = Path(__file__).parents[3] / "docs" / "samples" / "speech.flac"
MOST_BYTES = 16_000_000
SAID = f"Codec: {DEFAULT_CODEC}, the built-in one"


@pytest.fixture(scope="module")
def built_in() -> Codec:
    return Codec.from_pretrained(DEFAULT_CODEC, device="cpu")


def test_weights_give_the_recorded_tokens(built_in: Codec) -> None:
    recorded = json.loads((DATA / f"{DEFAULT_CODEC}.json").read_text())
    assert built_in.fingerprint == recorded["fingerprint"]
    codes = built_in.encode(*soundfile.read(SPEECH, dtype="float32"))[:, 0].numpy()
    assert len(codes) == len(recorded["codes"])
    # Another processor may round a tie between two codes to the other one.
    assert np.mean(codes == recorded["codes"]) > 0.99


def test_weights_are_small_and_of_the_preset(built_in: Codec) -> None:
    assert DEFAULT_CODEC in built_in_names()
    assert (FOLDER / DEFAULT_CODEC / MODEL_FILE).stat().st_size <= MOST_BYTES
    assert built_in.config == PRESETS[DEFAULT_CODEC]
    assert (built_in.sample_rate, built_in.n_codebooks) == (24_000, 1)
    assert built_in.frame_rate <= 93.75
    *_, last = load_stages(DEFAULT_CODEC, [])
    assert last.codec == built_in.config


def test_tokens_do_not_depend_on_the_batch(built_in: Codec) -> None:
    speech, rate = soundfile.read(SPEECH, dtype="float32")
    clips = [speech, speech[: len(speech) // 3], speech[len(speech) // 2 :]]
    together = built_in.encode_batch(clips, rate)
    for clip, codes in zip(clips, together, strict=True):
        np.testing.assert_array_equal(codes, built_in.encode(clip, rate))


def test_commands_use_it_where_no_codec_is_named(
    built_in: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (
        ["encode", SPEECH, "codes.npz"],
        ["decode", "codes.npz", "decoded"],
        ["reconstruct", SPEECH, "again.wav"],
        ["tokenize", SPEECH, "table", "--engine", "local"],
        ["verify", "table", "--reencode", 1, "--decode", 1],
        ["evaluate", SPEECH, "evaluation", "--engine", "local", "--metrics", "mel", "--controls", "none"],
        ["listen", "test", "--reference", SPEECH, "--clips", 1, "--no-serve"],
    ):
        result = codectok(*command)
        assert result.exit_code == 0, result.output
        assert one_line(result.stdout).count(SAID) == 1, result.output
    (row,) = open_table("table")
    np.testing.assert_array_equal(row.codes, built_in.encode(*soundfile.read(SPEECH, dtype="float32")))
    assert open_table("table").metadata.codec_name == DEFAULT_CODEC
    summary = json.loads(Path("evaluation/summary.json").read_text())
    assert list(summary["codecs"]) == [DEFAULT_CODEC]


@pytest.mark.usefixtures("ray_session")
def test_workers_of_ray_find_it_by_its_name(built_in: Codec, tmp_path: Path) -> None:
    result = codectok("tokenize", SPEECH, tmp_path / "table", "--engine", "ray", "--workers", 1)
    assert result.exit_code == 0, result.output
    (row,) = open_table(tmp_path / "table")
    np.testing.assert_array_equal(row.codes, built_in.encode(*soundfile.read(SPEECH, dtype="float32")))


def test_named_codec_is_not_announced(codec_folder: Path, tmp_path: Path) -> None:
    result = codectok("encode", SPEECH, tmp_path / "codes.npz", "--codec", codec_folder)
    assert (result.exit_code, "the built-in one" in result.output) == (0, False)


def test_codes_of_another_codec_ask_for_it(codec_folder: Path, tmp_path: Path) -> None:
    assert codectok("encode", SPEECH, tmp_path / "codes.npz", "--codec", codec_folder).exit_code == 0
    assert_refused(codectok("decode", tmp_path / "codes.npz", tmp_path / "decoded"), "another codec", "with --codec")


def test_name_is_the_same_everywhere_and_folders_are_told_apart(
    built_in: Codec,
    codec_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert absolute_codec_name(DEFAULT_CODEC) == absolute_codec_name(Path(DEFAULT_CODEC)) == DEFAULT_CODEC
    assert find_codec(DEFAULT_CODEC).revision is None
    assert not caplog.records
    monkeypatch.chdir(tmp_path)
    shutil.copytree(codec_folder, DEFAULT_CODEC)
    with caplog.at_level(logging.WARNING):
        assert load_codec(DEFAULT_CODEC, "cpu").fingerprint == built_in.fingerprint
    assert f"write ./{DEFAULT_CODEC}" in caplog.text
    other = Codec.from_pretrained(codec_folder, device="cpu").fingerprint
    for name in (f"./{DEFAULT_CODEC}", Path(DEFAULT_CODEC)):
        assert load_codec(name, "cpu").fingerprint == other
        assert absolute_codec_name(name) == str(tmp_path / DEFAULT_CODEC)


def test_inspect_shows_it(built_in: Codec) -> None:
    result = codectok("inspect", DEFAULT_CODEC)
    assert result.exit_code == 0, result.output
    assert built_in.fingerprint[:12] in result.output
    assert "size on disk" in result.output


def test_training_can_start_from_it(built_in: Codec) -> None:
    changes = ["data.sources=null", "data.shards=shards", "validation=null", "steps=20000"]
    config = load_train_config(f"{DEFAULT_CODEC}-student", [f"init_from={DEFAULT_CODEC}", *changes])
    assert config.init_from is not None
    assert load_initial_checkpoint(config.init_from, config.codec).fingerprint == built_in.fingerprint
    trainer = Trainer(config, torch.device("cpu"))
    assert trainer.skips_codebook_init
    assert torch.equal(trainer.network.quantizer.codebooks, built_in.network.quantizer.codebooks)


def test_unfinished_run_is_not_replaced_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(DEFAULT_CODEC).mkdir()
    config = load_train_config(f"{DEFAULT_CODEC}-student", [f"init_from={DEFAULT_CODEC}"])
    assert config.init_from is not None
    with pytest.raises(InputError, match="no codec to start from"):
        load_initial_checkpoint(config.init_from, config.codec)
