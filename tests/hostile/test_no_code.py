"""Inputs that hold code: nothing of it runs, and the refusal is one sentence."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from codectok import Codec, CodectokError
from codectok.audio.ffmpeg.decoding import is_installed
from codectok.audio.files import read_audio
from codectok.errors import AudioError, InputError
from codectok.train import load_train_config
from codectok.train.run.checkpoint import load_training_state
from tests.helpers.audio import tone
from tests.helpers.command_line import assert_refused, codectok


class Payload:
    """Makes the folder `mark` when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A folder that exists once code has run."""
    return tmp_path / "code has run"


def test_payload_works(mark: Path) -> None:
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.is_dir()


@pytest.mark.parametrize("place", ["whole", "generator", "tensor"])
@pytest.mark.parametrize("zipped", [True, False])
def test_distilcodec_checkpoint_runs_no_code(place: str, zipped: bool, mark: Path, tmp_path: Path) -> None:
    payload = Payload(mark)
    states: dict[str, Any] = {
        "whole": payload, "generator": {"generator": payload}, "tensor": {"generator": {"weight": payload}},
    }  # fmt: skip
    torch.save(states[place], tmp_path / "g_00000001", _use_new_zipfile_serialization=zipped)
    (tmp_path / "model_config.json").write_text("{}")
    with pytest.raises(CodectokError):
        Codec.from_distilcodec(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_training_checkpoint_runs_no_code(zipped: bool, mark: Path, tmp_path: Path) -> None:
    torch.save({"step": Payload(mark)}, tmp_path / "training.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"training\.pt"):
        load_training_state(tmp_path)
    (tmp_path / "training.pt").write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(InputError, match=r"training\.pt"):
        load_training_state(tmp_path)
    assert not mark.exists()


def test_codec_folder_runs_no_code(mark: Path, codec_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "codec").mkdir()
    (tmp_path / "codec" / "config.json").write_bytes((codec_folder / "config.json").read_bytes())
    (tmp_path / "codec" / "model.safetensors").write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(InputError, match=r"model\.safetensors"):
        Codec.from_pretrained(tmp_path / "codec")
    assert not mark.exists()


def test_codes_with_objects_run_no_code(mark: Path, codec_folder: Path, tmp_path: Path) -> None:
    objects = np.array([Payload(mark)], dtype=object)
    np.savez(tmp_path / "codes.npz", codectok=objects, clip=objects)
    result = codectok("decode", tmp_path / "codes.npz", tmp_path / "out", "--codec", codec_folder)
    assert result.exit_code
    assert not mark.exists()


@pytest.mark.parametrize("verb", ["configuration", "template", "override"])
def test_yaml_tags_run_no_code(verb: str, mark: Path, table: Path, tmp_path: Path) -> None:
    text = f"!!python/object/apply:os.mkdir ['{mark}']"
    path = tmp_path / "hostile.yaml"
    path.write_text(f"name: {text}\n")
    with pytest.raises(InputError):
        if verb == "configuration":
            load_train_config(str(path), [])
        elif verb == "override":
            load_train_config("nano", [f"steps={text}"])
        else:
            result = codectok("export", "sequences", table, tmp_path / "out", "--task", path, "--engine", "local")
            assert_refused(result, "hostile.yaml")
            raise InputError("refused")
    assert not mark.exists()


@pytest.mark.parametrize("condition", ["__import__('os').mkdir('{}')", "[mkdir('{}') for x in y]", "text == `{}`"])
def test_conditions_on_rows_run_no_code(condition: str, mark: Path, table: Path, tmp_path: Path) -> None:
    written = condition.format(mark)
    result = codectok("decode", table, tmp_path / "out", "--codec", "nano", "--where", written)
    assert result.exit_code == 2
    assert not mark.exists()


@pytest.mark.parametrize("part", ["tokenizer", "model"])
def test_code_beside_a_language_model_is_not_loaded(part: str, mark: Path, codec_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "code.py").write_text(f"import os; os.mkdir({str(mark)!r})\nclass T: pass\n")
    auto = {"AutoTokenizer": ["code.T", None], "AutoConfig": "code.T", "AutoModelForCausalLM": "code.T"}
    config = {"model_type": "hostile", "vocab_size": 400, "auto_map": auto, "tokenizer_class": "T"}
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        (folder / name).write_text(json.dumps(config))
    verb = "tokenizer" if part == "tokenizer" else "language-model"
    assert_refused(codectok("export", verb, folder, tmp_path / "out", "--codec", codec_folder))
    assert not mark.exists()


@pytest.mark.skipif(not is_installed(), reason="needs ffmpeg")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n"),
        ("list.txt", "ffconcat version 1.0\nfile '{}'\n"),
        ("list.sdp", "v=0\nm=audio 5004 RTP/AVP 0\na=file:{}\n"),
        ("list.mpd", '<?xml version="1.0"?><MPD><BaseURL>{}</BaseURL></MPD>'),
    ],
)
@pytest.mark.parametrize("suffix", ["own", ".mp4", ".wma"])
def test_lists_for_ffmpeg_open_no_other_file(name: str, text: str, suffix: str, tmp_path: Path) -> None:
    other = tmp_path / "private.wav"
    soundfile.write(other, tone(3.0, 24_000), 24_000)
    path = tmp_path / name if suffix == "own" else (tmp_path / name).with_suffix(suffix)
    path.write_text(text.format(other))
    with pytest.raises(AudioError):
        read_audio(path, 24_000)


@pytest.mark.skipif(not is_installed(), reason="needs ffmpeg")
@pytest.mark.parametrize("name", ["-y.mka", "concat:a|b.mka", "http:x.mka", "pipe:0.mka", "a%03d.mka", "sub\n.mka"])
def test_file_names_are_no_options_or_protocols_of_ffmpeg(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write(tmp_path / "a.wav", tone(3.0, 24_000), 24_000)
    # Ogg under the name of Matroska: libsndfile and ffmpeg decide by the bytes.
    soundfile.write(tmp_path / "a.ogg", tone(3.0, 24_000), 24_000)
    (tmp_path / "a.ogg").rename(tmp_path / name)
    assert len(read_audio(Path(name), 24_000)) == 72_000
