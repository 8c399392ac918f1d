"""Codecs of transformers: from raw audio to an exported sequence, on the command line."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from codectok import load_codec
from codectok.cli.main import app
from codectok.tokens.reader import open_table
from tests.helpers.command_line import codectok
from tests.helpers.evaluation import QUICK
from tests.helpers.hub_server import hub_server
from tests.helpers.jobs import digests, rejects
from tests.helpers.killing import Moment, run_and_kill
from tests.helpers.tokenizers import save_tokenizer
from tests.helpers.transformers_models import FAMILIES, save_model

Folders = Callable[[str], Path]
PAGE = Path(__file__).parents[3] / "docs" / "codecs.md"
# Tiny models have fewer codebooks than the page chooses.
ENOUGH_CODEBOOKS: Mapping[str, Mapping[str, Any]] = {
    "encodec": {"target_bandwidths": [0.8, 6.4]}, "dac": {"n_codebooks": 9}, "mimi": {"num_quantizers": 8},
}  # fmt: skip
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
    _run("evaluate", corpus, tmp_path / "evaluation", "--codec", codec, *QUICK)
    _run("export", "vocabulary", codec, tmp_path / "vocabulary")


def test_reconstruct_encodes_what_encode_does(tiny_model: Folders, tmp_path: Path) -> None:
    """The codec decodes at another rate than it encodes."""
    codec = f"transformers:{tiny_model('neucodec')}"
    wav = tmp_path / "a.wav"
    soundfile.write(wav, 0.2 * np.random.default_rng(1).standard_normal(32_000), 16_000)
    _run("encode", wav, tmp_path / "codes.npz", "--codec", codec, "--device", "cpu")
    _run("decode", tmp_path / "codes.npz", tmp_path / "decoded", "--codec", codec, "--device", "cpu")
    _run("reconstruct", wav, tmp_path / "again.wav", "--codec", codec, "--device", "cpu")
    (path,) = (tmp_path / "decoded").iterdir()
    decoded, again = soundfile.read(path)[0], soundfile.read(tmp_path / "again.wav")[0]
    np.testing.assert_array_equal(again, decoded[: len(again)])


def _commands_of_page(name: str) -> tuple[list[list[str]], str]:
    """Return the commands of the page for one codec, and its name with the number of codebooks that the page chooses.

    The page shows the commands for its first codec, and lists the names of the others.
    """
    page = PAGE.read_text(encoding="utf-8")
    (block,) = re.findall(r"```text\n(codectok tokenize \S+ \S+ --codec transformers:.*?)```", page, re.DOTALL)
    shown = re.findall(r"transformers:[\w./@-]+", block)[0]
    (codec,) = {found for found in re.findall(r"transformers:([\w./-]+(?:@\d+)?)", page) if found.split("@")[0] == name}
    commands = [shlex.split(line.replace(shown, f"transformers:{codec}"))[1:] for line in block.splitlines()]
    return commands, f"transformers:{codec}"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_commands_of_page_run_and_resume(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    (row,) = re.findall(rf"^\| `{family}` \| (.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    published = row.strip("`") if row.startswith("`") else f"{family}/"
    (tokenize, verify, export), codec = _commands_of_page(published)
    shutil.copytree(corpus, "recordings")
    save_tokenizer(Path("qwen"))
    model = save_model(family, tmp_path / family, **ENOUGH_CODEBOOKS.get(family, {}))
    tokenize += ["--device", "cpu", "--part-seconds", "1", *LOCAL]
    with hub_server() as hub:
        hub.use(monkeypatch, tmp_path)
        if published != f"{family}/":
            hub.add(published, model)
            shutil.rmtree(model)
        table = Path(tokenize[2]).absolute()
        killed = run_and_kill(partial(app, tokenize), table, tmp_path / "log", Moment("before a change", 25))
        _run(*tokenize)
        _run(*tokenize[:2], "straight", *tokenize[3:])
        _run(*verify)
        _run(*export, *LOCAL)
        n_codebooks = load_codec(codec, "cpu").n_codebooks

    assert killed.status < 0, killed.log
    assert _parts(Path("straight")) == _parts(table) != {}
    rows = list(open_table(table))
    assert {row.codes.shape[1] for row in rows} == {n_codebooks}
    assert len(rows) + len(rejects(table)) == 5
    assert len(list(Path("listen").iterdir())) >= min(5, len(rows))
    sequences = [row for file in sorted(Path("sequences").glob("*.parquet")) for row in _rows(file)]
    assert sum(len(row["input_ids"]) for row in sequences) > sum(row.codes.size for row in rows)
