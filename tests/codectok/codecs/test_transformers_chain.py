"""Codecs of transformers: from raw audio to an exported sequence, on the command line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from codectok import load_codec
from codectok.cli.main import app
from codectok.tokens.reader import open_table
from tests.helpers.command_line import codectok
from tests.helpers.jobs import digests, rejects
from tests.helpers.killing import Moment, run_and_kill
from tests.helpers.tokenizers import save_tokenizer
from tests.helpers.transformers_models import FAMILIES

Folders = Callable[[str], Path]
LOCAL = ("--engine", "local", "--max-rejects", "1")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of several rates and lengths with transcripts, and a clip of 11 ms."""
    folder = tmp_path_factory.mktemp("corpus") / "speech"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number, (seconds, rate) in enumerate([(1.0, 16000), (0.7, 22050), (1.3, 8000), (1.0, 16000), (0.011, 16000)]):
        soundfile.write(folder / f"a{number}.wav", 0.2 * random.standard_normal(int(seconds * rate)), rate)
        (folder / f"a{number}.txt").write_text(f"text {number}")
    return folder


def _tokenize(corpus: Path, output: Path, codec: str, *options: str) -> list[str]:
    return ["tokenize", str(corpus), str(output), "--codec", codec, "--device", "cpu", "--part-seconds", "1",
            *LOCAL, *options]  # fmt: skip


def _run(*arguments: object) -> str:
    result = codectok(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def _parts(table: Path) -> dict[str, str]:
    return {name: digest for name, digest in digests(table).items() if name.startswith("part-")}


def _assert_chain(table: Path, corpus: Path, codec: str, folder: Path, tokenizer: Path) -> None:
    """Check a table of `corpus`, decode it, and export it as sequences."""
    loaded = load_codec(codec, "cpu")
    n_clips = 4 if loaded.describe().codec_type.endswith("neucodec") else 5
    assert len(open_table(table)) == n_clips
    assert [row["reason"] for row in rejects(table)] == ["too_short"] * (5 - n_clips)
    _run("verify", table, "--codec", codec, "--reencode", 10, "--decode", 1, "--to", folder / "listen")
    _run("decode", table, folder / "decoded", "--codec", codec)
    decoded = {path.name.split("_")[0]: soundfile.info(path) for path in (folder / "decoded").iterdir()}
    first = decoded["speech-a0"]
    assert first.samplerate == loaded.decoded_sample_rate
    assert 0 <= first.samplerate - first.frames < loaded.frame_size, "one second, apart from frames that DAC loses"
    sequences = folder / "sequences"
    _run("export", "sequences", table, sequences, "--task", "tts", "--tokenizer", tokenizer, *LOCAL)
    (row, *_) = [row for file in sorted(sequences.glob("*.parquet")) for row in _rows(file)]
    n_codes = len(open_table(table).row(0).codes) * loaded.n_codebooks
    assert len(row["input_ids"]) > n_codes


def _rows(file: Path) -> list[dict[str, list[int]]]:
    import pyarrow.parquet as pq

    found: list[dict[str, list[int]]] = pq.read_table(file).to_pylist()
    return found


def test_raw_audio_becomes_sequences(tiny_model: Folders, corpus: Path, tmp_path: Path) -> None:
    codec = f"transformers:{tiny_model('neucodec')}"
    table, straight = tmp_path / "tokens", tmp_path / "straight"
    _run(*_tokenize(corpus, table, codec, "--limit", "1"))
    _run(*_tokenize(corpus, table, codec))
    _run(*_tokenize(corpus, straight, codec))

    assert _parts(straight) == _parts(table) != {}
    _assert_chain(table, corpus, codec, tmp_path, save_tokenizer(tmp_path / "tokenizer"))


def test_single_commands_take_codecs_of_transformers(tiny_model: Folders, corpus: Path, tmp_path: Path) -> None:
    codec = f"transformers:{tiny_model('encodec')}@2"
    assert "2 of 16 codes" in _run("inspect", codec)
    _run("encode", corpus, tmp_path / "codes.npz", "--codec", codec)
    _run("decode", tmp_path / "codes.npz", tmp_path / "decoded", "--codec", codec)
    _run("reconstruct", corpus / "a1.wav", tmp_path / "again.wav", "--codec", codec)
    again = soundfile.info(tmp_path / "again.wav")
    assert (again.samplerate, again.frames) == (8000, 5600)
    _run("evaluate", corpus, "--codec", codec, "--out", tmp_path / "report.json")
    _run("export", "vocabulary", codec, tmp_path / "vocabulary")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_killed_chain_resumes(tiny_model: Folders, corpus: Path, tmp_path: Path, family: str) -> None:
    torch.set_num_threads(1)
    codec = f"transformers:{tiny_model(family)}"
    table, straight = tmp_path / "tokens", tmp_path / "straight"
    command = _tokenize(corpus, table, codec)

    killed = run_and_kill(partial(app, command), table, tmp_path / "log", Moment("before a change", 25))
    _run(*command)
    _run(*_tokenize(corpus, straight, codec))

    assert killed.status < 0, killed.log
    assert _parts(straight) == _parts(table) != {}
    _assert_chain(table, corpus, codec, tmp_path, save_tokenizer(tmp_path / "tokenizer"))
